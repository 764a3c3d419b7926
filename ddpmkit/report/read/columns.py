"""The columns of tidy results, and which of them are text."""

from __future__ import annotations

AXES = (
    "dataset",
    "schedule",
    "sigma",
    "weighting",
    "backbone",
    "sampler",
    "timesteps",
    "sampling_steps",
    "prediction",
)
COLUMNS = (
    "study",
    "cell",
    *AXES,
    "train_seed",
    "sample_seed",
    "metric",
    "value",
    "standard_error",
    "test_set_error",
    "unit",
    "status",
    "n",
    "evaluations",
    "seconds",
    "train_seconds",
    "parameters",
    "flops",
    "definition",
    "fingerprint",
    "stage",
    "train_stage",
)


# Columns of studies with a class-conditional cell alone.
OF_CLASSES = ("conditional", "guidance", "sample_labels")

NUMBERS = {
    "timesteps", "sampling_steps", "train_seed", "sample_seed", "value", "standard_error", "test_set_error", "n",
    "evaluations", "seconds", "train_seconds", "parameters", "flops",
}  # fmt: skip
TEXT = tuple(column for column in COLUMNS if column not in NUMBERS)
