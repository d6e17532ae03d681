"""The latents that changed most between two looks at the same texts, for a person to read."""

from __future__ import annotations

from callbacks.markdown import escaped
from explanations import Look
from lightning_modules.functional import LatentLevels, most_changed


def changed_latents(base: Look, now: LatentLevels, count: int) -> str:
    """A Markdown table of at most so many latents, the one with the largest share in the drift first."""
    total = float(base.levels.magnitudes.sum())
    lines = [
        "| latent | fires on (automatic label) | share of drift | mean activation, base → now | fires on, base → now |",
        "| --- | --- | --- | --- | --- |",
    ]
    drift = float((now.magnitudes - base.levels.magnitudes).abs().sum())
    for latent in most_changed(base.levels, now, count).tolist():
        before, after = (float(levels.magnitudes[latent]) for levels in (base.levels, now))
        rates = [float(levels.rates[latent]) for levels in (base.levels, now)]
        label = escaped(base.labels.get(latent, ""))
        lines.append(
            f"| {latent} | {label} | {abs(after - before) / drift:.1%} | {before:.4f} → {after:.4f} "
            f"({_change(before, after)}) | {rates[0]:.2%} → {rates[1]:.2%} |"
        )
    return "\n".join(lines) if drift else f"No latent has changed; their mean activations add up to {total:.4f}."


def in_words(base: Look, now: LatentLevels, count: int) -> str:
    """The same latents in a sentence."""
    told = []
    for latent in most_changed(base.levels, now, count).tolist():
        before, after = (float(levels.magnitudes[latent]) for levels in (base.levels, now))
        label = base.labels.get(latent)
        named = f" ({label})" if label else ""
        told.append(f"latent {latent}{named} {_change(before, after)}")
    return ", ".join(told)


def _change(before: float, after: float) -> str:
    return f"{(after - before) / before:+.0%}" if before else "new"
