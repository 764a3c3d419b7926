"""Equal tuning: every cell of a study is tried with the same values of a setting, and runs with its own best one.

    tune = ["learning_rate=0.001,0.002,0.004"]    # several lines: every combination is a trial
    tune_seeds = [1000]                           # train seeds of the trials, none of them the study's

Which value is the best stands in no study file: the trials say so again, whose stages are in the store.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddpmkit import files
from ddpmkit.errors import DdpmkitError, did_you_mean
from ddpmkit.plugin import spec
from ddpmkit.study.naming import LONGEST
from ddpmkit.study.settings import FIELDS
from ddpmkit.study.values import check_text, read_seeds

SEEDS = "1000"
# What a course of training is made of. What is compared, and what a likelihood can't judge, is not tuned.
TUNABLE = (
    "learning_rate", "lr_decay", "cooldown_share", "warmup", "weight_decay", "batch_size", "grad_clip", "clip_ratio",
    "dropout", "timestep_sampling", "label_dropout", "train_steps",
)  # fmt: skip

Values = dict[str, Any]  # setting -> value


@dataclass(frozen=True)
class Tune:
    """What is tuned, and what came out.

    Attributes:
        lists: setting -> the values that are tried.
        seeds: the train seeds of the trials.
        chosen: label of a cell -> its best values; empty until the trials are done. An impossible cell has none.
        study: name of the study of the trials, once they are done.
    """

    lists: dict[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    chosen: dict[str, Values] = field(default_factory=dict)
    study: str = ""

    def __str__(self) -> str:
        """Say what is tuned, in one line; two that say the same are the same."""
        seeds = ",".join(map(str, self.seeds))
        return f"{' '.join(self.texts())} at train seeds {seeds}"

    def texts(self) -> list[str]:
        """The lists, each as one types it."""
        return [f"{name}={','.join(map(_text, values))}" for name, values in self.lists.items()]

    def trials(self) -> list[Values]:
        """Every combination of values, the last setting running fastest."""
        return [dict(zip(self.lists, values, strict=True)) for values in itertools.product(*self.lists.values())]

    def of(self, label: str) -> Values:
        """The values that a cell got; none before the trials.

        Raises:
            DdpmkitError: for a cell that was not tried when others were.
        """
        if self.chosen and label not in self.chosen:
            raise DdpmkitError(f"cell '{label}' has no trials yet", "the same command again begins with them")
        return self.chosen.get(label, {})

    def notes(self) -> list[str]:
        """Say which cell got which values, and from how many trials; nothing before the trials."""
        by_values: dict[str, list[str]] = {}
        for label, values in self.chosen.items():
            if values:
                by_values.setdefault(", ".join(f"{k} {_text(v)}" for k, v in values.items()), []).append(label)
        if not by_values:
            return []
        count, seeds = len(self.trials()), ",".join(map(str, self.seeds))
        told = "; ".join(f"{values}: {', '.join(labels)}" for values, labels in by_values.items())
        return [
            f"tuned, each cell by {count} trials ({' '.join(self.texts())}) at train seed{'s' * (len(self.seeds) > 1)} "
            f"{seeds}, judged by the bound on the validation images (study {self.study}): {told}"
        ]

    def warnings(self) -> list[str]:
        """Say where the best value is at an end of its list, beyond which a better one may lie."""
        out = []
        for name, values in self.lists.items():
            numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
            if len(numbers) < len(values):
                continue  # names have no ends
            for end, word in ((min(numbers), "smallest"), (max(numbers), "largest")):
                cells = [label for label, chosen in self.chosen.items() if chosen.get(name) == end]
                if cells:
                    out.append(
                        f"{name} {_text(end)} is the {word} that was tried, and the best for {', '.join(cells)}: a "
                        f"{'smaller' if word == 'smallest' else 'larger'} one may be better"
                    )
        return out

    def json(self) -> dict[str, Any]:
        """The tuning as a plan records it."""
        lists = {name: list(values) for name, values in self.lists.items()}
        return {"lists": lists, "seeds": list(self.seeds), "study": self.study, "chosen": self.chosen}


def read_tune(texts: Any, seeds: Any, read: Callable[[str, str], Sequence[Any]]) -> Tune | None:
    """Read what is to be tuned; None where nothing is.

    Args:
        texts: ``learning_rate=1e-3,2e-3``, or a list of such texts.
        seeds: Train seeds of the trials; 1000 for None.
        read: Reads the values of a setting.

    Raises:
        DdpmkitError: for a text that names no setting and values, a setting that can't be tuned, or a bad value.
    """
    hint = "as in --tune learning_rate=1e-3,2e-3,4e-3"
    check_text("tune", texts, single=False)
    lists: dict[str, tuple[Any, ...]] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        key, eq, values = text.partition("=")
        name = key.strip().replace("-", "_")
        if not eq or not values:
            raise DdpmkitError(f"--tune '{text}': expected name=value,value", hint)
        if name not in TUNABLE:
            raise DdpmkitError(f"--tune: '{name}' can't be tuned{did_you_mean(name, TUNABLE)}", f"{', '.join(TUNABLE)}")
        if name in lists:
            raise DdpmkitError(f"--tune: '{name}' is given twice", "keep one of the two")
        lists[name] = tuple(read(name, values))
        if len(lists[name]) < 2:
            raise DdpmkitError(f"--tune '{text}': one value leaves no choice", hint)
    if not lists:
        if seeds is not None:
            raise DdpmkitError("--tune-seeds belongs to --tune", hint)
        return None
    ordered = {name: lists[name] for name in FIELDS if name in lists}
    return Tune(ordered, read_seeds("tune_seeds", SEEDS if seeds is None else seeds))


def refuse_clashes(tune: Tune | None, axes: Mapping[str, Sequence[Any]], train_seeds: Sequence[int]) -> None:
    """Refuse to tune what is an axis, and to choose by seeds that are then judged by.

    Raises:
        DdpmkitError: with the setting or the seed.
    """
    if tune is None:
        return
    for name in tune.lists:
        if len(axes.get(name, ())) > 1:
            raise DdpmkitError(f"'{name}' is an axis of the study, and can't be tuned", f"leave out --tune {name}")
    for seed in tune.seeds:
        if seed in train_seeds:
            raise DdpmkitError(
                f"train seed {seed} is one of the study and one of the trials: a choice that is judged on what it was "
                "made by looks better than it is",
                f"--tune-seeds {max(train_seeds) + 1000}",
            )


def trials_name(study: str) -> str:
    """The name of the study of the trials; a long one is cut, and ends in a hash of the whole, so that none share."""
    if len(study) > LONGEST - len("-tune"):
        whole = files.sha256(study.encode())[:8]
        study = f"{study[: LONGEST - len(f'-{whole}-tune')]}-{whole}"
    return f"{study}-tune"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else spec.encode(value)
