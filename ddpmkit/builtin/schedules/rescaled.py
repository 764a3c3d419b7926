"""The betas of one schedule, rescaled to the sum of another's."""

from dataclasses import dataclass

from ddpmkit import Array, DdpmkitError, Schedule, param
from ddpmkit.builtin.schedules.cosine import Cosine
from ddpmkit.builtin.schedules.linear import Linear


@dataclass(frozen=True)
class Rescaled(Schedule):
    """One schedule's betas, multiplied by a factor so that they add up to another's: the same noise, spread otherwise.

    beta_t = min(c base_t, max_beta), c = sum_t like_t / sum_t base_t. Where the clip bites the sum falls short of the
    other's by what is cut off.
    """

    name = "rescaled"
    reference = "none; a control for what of a schedule's effect is its sum of betas"
    base: Schedule = param(Cosine(), "the schedule that is rescaled, any variance-preserving one")
    sum_like: Schedule = param(Linear(), "the schedule whose sum of betas is taken, any variance-preserving one")
    max_beta: float = param(0.999, "betas are clipped to this", gt=0, lt=1)

    def betas(self, T: int) -> Array:
        """Return beta_t, float64 (T,).

        Raises:
            DdpmkitError: when one of the two is not variance-preserving, or T is too small for it.
        """
        import numpy as np

        from ddpmkit import tables_for

        base, like = tables_for(self.base, T), tables_for(self.sum_like, T)
        for word, part, tables in (("base", self.base, base), ("sum_like", self.sum_like, like)):
            if not tables.variance_preserving:
                raise DdpmkitError(
                    f"rescaled: its {word} '{part}' is not variance-preserving, and has no betas to add up",
                    "as in rescaled:base=cosine:sum_like=linear",
                )
        return np.asarray(np.minimum(base.betas * (like.betas.sum() / base.betas.sum()), self.max_beta))
