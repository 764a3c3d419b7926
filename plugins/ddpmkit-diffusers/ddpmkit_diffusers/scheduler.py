"""What DDPMScheduler says of a cell: the chain, what the network predicts, how it walks; and what it can't say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpmkit import DdpmkitError

if TYPE_CHECKING:
    from ddpmkit.study.loaded import Loaded

PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"beta": "fixed_large", "beta-tilde": "fixed_small", "learned-range": "learned_range"}
SPACINGS = {"even": "linspace", "trailing": "trailing"}


def scheduler_of(loaded: Loaded) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration of DDPMScheduler, and a line for each choice of the cell that it has no word for.

    Raises:
        DdpmkitError: when the chain, the prediction or a learned sigma has no counterpart, so that nothing would work.
    """
    tables, sigma, prediction, sampler = loaded.tables, loaded.sigma, loaded.trained.prediction, loaded.sampler
    own, notes = loaded.registry.is_builtin, []
    if not tables.variance_preserving:
        raise DdpmkitError(
            f"schedule '{loaded.schedule.name}' is not variance-preserving, and DDPMScheduler knows no other",
            "name a cell with another schedule",
        )
    if not (own(prediction) and prediction.name in PREDICTIONS):
        known = ", ".join(PREDICTIONS)
        raise DdpmkitError(f"DDPMScheduler does not know the prediction '{prediction.name}'", f"it knows {known}")
    variance = VARIANCES.get(sigma.name) if own(sigma) else None
    if variance is None and sigma.learned:
        raise DdpmkitError(f"DDPMScheduler does not know the learned sigma '{sigma.name}'", "it knows learned-range")
    if variance is None:
        notes.append(f"DDPMScheduler does not know sigma '{sigma.name}': the folder says beta-tilde")
    clip = getattr(sampler, "clip", None) if own(sampler) else None
    spacing = SPACINGS.get(getattr(sampler, "spacing", "")) if own(sampler) else None
    if sampler.name != "ancestral" or not own(sampler):
        notes.append(f"DDPMPipeline walks as the sampler 'ancestral' does, not as '{sampler.name}'")
    if spacing is None or clip is None:
        notes.append("the steps or the clipping of the walk are not the study's")
    dynamic = clip == "dynamic"
    return {
        "num_train_timesteps": tables.T,
        "trained_betas": tables.b2.tolist(),
        "variance_type": variance or "fixed_small",
        "prediction_type": PREDICTIONS[prediction.name],
        "timestep_spacing": spacing or "trailing",
        "clip_sample": clip in (None, "static"),
        "thresholding": dynamic,
        **({"sample_max_value": 1e6} if dynamic else {}),  # ours has no such limit
    }, notes
