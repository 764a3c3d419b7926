"""Whether a training gets out of its warm-up."""

from __future__ import annotations

import functools

from ddpmkit.study.settings import Settings, cooldown_steps


def warmup_warning(s: Settings) -> str | None:
    """Return what to say of a training that warms up for more than half of its steps, with the largest rate it reaches.

    The rate is a share of the one that is set, so that trainings which differ in it alone are warned about once.
    """
    if 2 * min(s.warmup - 1, s.train_steps) <= s.train_steps:  # the last step of a warm-up has the full rate
        return None
    never = s.warmup >= s.train_steps
    what = f"{s.train_steps} training steps never leave" if never else f"most of {s.train_steps} training steps are"
    share = _largest(s.train_steps, s.warmup, s.lr_decay, cooldown_steps(s))
    return (
        f"{what} the warm-up of {s.warmup}: with {s.lr_decay} decay the rate gets to {100 * share:.2g} % of "
        f"learning_rate; a shorter one is --axis warmup={s.train_steps // 10}"
    )


@functools.cache
def _largest(steps: int, warmup: int, lr_decay: str, cooldown: int) -> float:
    from ddpmkit.training.config import rate

    # A decay never rises, so that the largest rate is in the warm-up or at its end.
    course = functools.partial(rate, largest=1.0, steps=steps, warmup=warmup, lr_decay=lr_decay, cooldown=cooldown)
    return max(course(i) for i in range(min(steps, warmup)))
