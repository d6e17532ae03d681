"""What is said of a difference in sentences, on the page and in the terminal alike."""

from __future__ import annotations

from pathlib import PurePath

from explanations import Gain, ModelDifference
from lightning_modules.functional import BootstrapInterval

_PARTS = {"bias": "the mean of all texts", "error": "what no latent explains"}


def gain_in_words(gain: Gain | str, split: str) -> str:
    """What fine-tuning gained in retrieval, and how sure that is."""
    if isinstance(gain, str):
        return gain
    said = (
        f"NDCG@10 of {gain.queries:,} held-out queries ({split}) among {gain.documents:,} documents went from "
        f"{gain.base:.3f} to {gain.tuned:.3f}: {points(gain.gain.mean)} points, 95% interval {ends(gain.gain)}."
    )
    if gain.is_sure:
        return f"{said} {_shared_out(gain)}"
    if gain.gain.high < 0:
        return f"{said} Fine-tuning made retrieval worse, so there is no gain to share out."
    return f"{said} That is within noise of zero, so there is no gain to share out."


def _shared_out(gain: Gain) -> str:
    """What most of the gain hangs on."""
    first, second, *_ = sorted(gain.parts, key=lambda part: -part.share.mean)
    return (
        f"{first.share.mean:.0%} of it hangs on {_PARTS.get(first.name, f'{first.name} latents')}, "
        f"{second.share.mean:.0%} on {_PARTS.get(second.name, f'{second.name} latents')}."
    )


def points(value: float) -> str:
    """NDCG in hundredths, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def ends(interval: BootstrapInterval) -> str:
    """Of an interval of NDCG, in hundredths."""
    return f"{points(interval.low)} to {points(interval.high)}"


def model_name(model: str, side: str) -> str:
    """A model as a person calls it: the run, where it is one's export, or the last part of its name."""
    path = PurePath(model)
    if len(path.parts) > 4 and path.parent.name == "encoder":
        return f"run {path.parents[3].name}"
    return model.removeprefix("package:").rstrip("/").rpartition("/")[2] or side


def title_of(difference: ModelDifference) -> str:
    """Both models, in words."""
    base, tuned = (
        model_name(model, side.partition("/")[0])
        for model, side in zip(difference.models, difference.sides, strict=True)
    )
    return f"{base} → {tuned}"
