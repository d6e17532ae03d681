"""A difference as a short table of text."""

from __future__ import annotations

from collections.abc import Iterator

from explanations import GROUPS, Gain, ModelDifference
from reports.difference.words import ends, gain_in_words, points, title_of

WIDTH = 18


def table_of(difference: ModelDifference) -> str:
    """Groups of latents with what of the gain hangs on them."""
    return "\n".join(_lines(difference))


def _lines(difference: ModelDifference) -> Iterator[str]:
    gain, live = difference.gain, int(difference.fires.sum())
    shared_out = isinstance(gain, Gain) and gain.is_sure
    yield f"what fine-tuning changed: {title_of(difference)}"
    lost = f"{'NDCG@10 lost without':>22}  {'95% interval':>15}  {'share of the gain':>17}" if shared_out else ""
    yield f"  {'':<{WIDTH}}{'latents':>9}{'':>8}{lost}".rstrip()
    for place, name in enumerate(GROUPS):
        count = len(difference.members(place))
        yield f"  {name:<{WIDTH}}{count:>9,}{count / max(1, live):>8.1%}{_of_gain(gain, place)}"
    if shared_out:
        for place, other in enumerate(("the mean", "unexplained"), len(GROUPS)):
            yield f"  {other:<{WIDTH}}{'':>17}{_of_gain(gain, place)}"
    yield f"  {gain_in_words(gain, difference.settings.split)}"


def _of_gain(gain: Gain | str, place: int) -> str:
    if isinstance(gain, str) or not gain.is_sure:
        return ""
    part = gain.parts[place]
    return f"{points(part.lost.mean):>22}  {ends(part.lost):>15}  {part.share.mean:>17.0%}".replace("-", "−")
