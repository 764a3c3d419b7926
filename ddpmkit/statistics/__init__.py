"""Honest tables with few seeds: Student-t intervals over train seeds, contrasts paired by seed, Holm, verdicts.

The unit of replication is the train seed; sample seeds are averaged inside it before anything here is called.
"""

from ddpmkit.statistics.anytime import Anytime, G, confidence_sequence, e_value, half_width, seeds_to_end
from ddpmkit.statistics.components import Components, components
from ddpmkit.statistics.contrasts import ONE_RESULT, Contrast, Pairs, contrasts, judge, words
from ddpmkit.statistics.equivalence import equivalence_p
from ddpmkit.statistics.factorial import Effect, Interaction, Matched, effects, interactions
from ddpmkit.statistics.holm import holm, holm_levels
from ddpmkit.statistics.intervals import ALPHA, Interval, t_interval
from ddpmkit.statistics.paired import correlation, paired_p, sign_flip_floor, sign_flip_p
from ddpmkit.statistics.power import POWER, seeds_for_margin, seeds_needed, smallest_visible
from ddpmkit.statistics.rounding import ROUNDING

__all__ = [
    "ALPHA",
    "ONE_RESULT",
    "POWER",
    "ROUNDING",
    "Anytime",
    "Components",
    "Contrast",
    "Effect",
    "G",
    "Interaction",
    "Interval",
    "Matched",
    "Pairs",
    "components",
    "confidence_sequence",
    "contrasts",
    "correlation",
    "e_value",
    "effects",
    "equivalence_p",
    "half_width",
    "holm",
    "holm_levels",
    "interactions",
    "judge",
    "paired_p",
    "seeds_for_margin",
    "seeds_needed",
    "seeds_to_end",
    "sign_flip_floor",
    "sign_flip_p",
    "smallest_visible",
    "t_interval",
    "words",
]
