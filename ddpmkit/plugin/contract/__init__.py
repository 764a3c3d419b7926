"""What a component must satisfy, kind by kind: everything that one hands in is asked for and checked here, once.

Each function calls the component, twice where the answer must not change, and gives back a clean value: float64 arrays
of one's own in C order, Python numbers, a network that checks its own output. What does not fit is refused by name.
In a loop over steps only shape, dtype and device are looked at, never a value: that would wait for the device.
"""

from __future__ import annotations

from ddpmkit.plugin.contract.backbone import dropout_layers, image_size, network, takes, why_no_labels
from ddpmkit.plugin.contract.dataset import images, outline, stamp
from ddpmkit.plugin.contract.executor import event, event_problem
from ddpmkit.plugin.contract.features import PROBE, Extractor, extractor, fingerprint, label
from ddpmkit.plugin.contract.metric import column, measured, remark, why_not
from ddpmkit.plugin.contract.prediction import declared_divisor, divisor, impossible, target, x0hat
from ddpmkit.plugin.contract.registered import class_problem
from ddpmkit.plugin.contract.sampler import kernel, timesteps, walk
from ddpmkit.plugin.contract.schedule import prior_variance, steps
from ddpmkit.plugin.contract.sigma import (
    fixed_log_variance,
    largest_last_variance,
    log_bounds,
    network_log_variance,
    x0_variance,
)
from ddpmkit.plugin.contract.weighting import checked_weights, declared_weights, vlb_share

__all__ = [
    "PROBE",
    "Extractor",
    "checked_weights",
    "class_problem",
    "column",
    "declared_divisor",
    "declared_weights",
    "divisor",
    "dropout_layers",
    "event",
    "event_problem",
    "extractor",
    "fingerprint",
    "fixed_log_variance",
    "image_size",
    "images",
    "impossible",
    "kernel",
    "label",
    "largest_last_variance",
    "log_bounds",
    "measured",
    "network",
    "network_log_variance",
    "outline",
    "prior_variance",
    "remark",
    "stamp",
    "steps",
    "takes",
    "target",
    "timesteps",
    "vlb_share",
    "walk",
    "why_no_labels",
    "why_not",
    "x0_variance",
    "x0hat",
]
