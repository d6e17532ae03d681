"""Predictions of two moments, runs or members side by side, with what changed marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from reports.prediction_lines import Line, lines_of
from reports.text_columns import GAP, filled, visible, wrapped
from run_store.predictions import Prediction

MARK = "*"
_NARROWEST = 20


class Pair(NamedTuple):
    """One sample's prediction on either side; None where a side has none."""

    left: Prediction | None
    right: Prediction | None

    @property
    def sample(self) -> Prediction:
        """One that tells what the sample is."""
        one = self.left or self.right
        assert one is not None
        return one


class Difference(NamedTuple):
    """What both sides say of one thing; "" where a side says nothing."""

    label: str
    left: str
    right: str
    changed: bool


def pair_up(left: Iterable[Prediction], right: Iterable[Prediction]) -> list[Pair]:
    """Puts together what is of one sample: the last prediction of each side for the same prompt.

    Samples are told by their prompt, since another run may have numbered them otherwise; equal prompts in their order.
    Members are told apart where a side has several.
    """
    ours, theirs = _last(left), _last(right)
    several = any(len({one.member for one in side}) > 1 for side in (ours, theirs))
    first, second = _keyed(ours, several), _keyed(theirs, several)
    return [Pair(first.get(key), second.get(key)) for key in {**first, **second}]


def differences(pair: Pair) -> list[Difference]:
    """What the sides say, thing by thing, in the order of the left side."""
    left, right = _labelled(pair.left), _labelled(pair.right)
    nothing = Line("", "", "")
    both = ((label, left.get(label, nothing), right.get(label, nothing)) for label in {**left, **right})
    return [Difference(label, one.text, other.text, one.compared != other.compared) for label, one, other in both]


def side_by_side(pairs: Sequence[Pair], titles: tuple[str, str], width: int) -> Iterator[str]:
    """The lines of a comparison to look at.

    Args:
        pairs: what `pair_up` found.
        titles: of the left and of the right side.
        width: cells in a line.
    """
    found = [differences(pair) for pair in pairs]
    names = max((len(difference.label) for each in found for difference in each), default=0)
    side = max(_NARROWEST, (width - len(MARK) - 1 - names - 2 * len(GAP)) // 2)
    for pair, each in zip(pairs, found, strict=True):
        sample = pair.sample
        member = f" of {sample.member}" if sample.member else ""
        yield from wrapped(f"sample {sample.sample_index}{member}: {visible(sample.prompt)}", width)
        if sample.ground_truth is not None:
            yield from wrapped(f"ground truth: {visible(sample.ground_truth)}", width)
        for difference in (Difference("", *titles, False), *each):
            yield from _row(difference, names, side)
        yield ""
    changed = sum(any(difference.changed for difference in each) for each in found)
    yield f"{len(pairs)} samples, {changed} changed ({MARK} marks what did)"


def _row(difference: Difference, names: int, side: int) -> Iterator[str]:
    left, right = wrapped(difference.left, side), wrapped(difference.right, side)
    for index in range(max(len(left), len(right))):
        mark = MARK if difference.changed and index == 0 else ""
        label = difference.label if index == 0 else ""
        one, other = (lines[index] if index < len(lines) else "" for lines in (left, right))
        yield f"{mark:<{len(MARK)}} {label:<{names}}{GAP}{filled(one, side)}{GAP}{other}".rstrip()


def _last(predictions: Iterable[Prediction]) -> list[Prediction]:
    last: dict[tuple[str, int], Prediction] = {}
    for one in sorted(predictions, key=lambda one: one.step):
        last[one.member, one.sample_index] = one
    return sorted(last.values(), key=lambda one: (one.member, one.sample_index))


def _keyed(side: Iterable[Prediction], several: bool) -> dict[tuple[str, str, int], Prediction]:
    seen: Counter[tuple[str, str]] = Counter()
    keyed = {}
    for one in side:
        member = one.member if several else ""
        keyed[member, one.prompt, seen[member, one.prompt]] = one
        seen[member, one.prompt] += 1
    return keyed


def _labelled(prediction: Prediction | None) -> dict[str, Line]:
    return {} if prediction is None else {line.label: line for line in lines_of(prediction)}
