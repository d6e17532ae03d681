"""What `predictions compare` puts on either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from run_store import UserError
from run_store.predictions import Prediction, PredictionStore, RunEntry


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        run_id, name: of the run.
        member: of a sweep; None for all of them.
        epoch: of the run.
    """

    run_id: str
    name: str
    member: str | None
    epoch: int

    def predictions(self, store: PredictionStore) -> list[Prediction]:
        return store.predictions(run=self.run_id, member=self.member, epoch=self.epoch)


def both_sides(
    store: PredictionStore,
    run: str,
    other: str | None,
    epochs: Sequence[int] | None,
    members: Sequence[str] | None,
) -> tuple[Side, Side]:
    """The left and the right side that a person means, see `cli.predictions.compare`.

    Raises:
        UserError: a run or an epoch of it is not there, or both sides would be the same.
    """
    left = store.resolve(run)
    right = left if other is None else store.resolve(other)
    first, second = _both(members, "members")
    one, another = _both(epochs, "epochs")
    alone = left == right and first == second
    sides = _side(store, left, first, one, 0 if alone else -1), _side(store, right, second, another, -1)
    if sides[0] == sides[1]:
        raise UserError(
            f"both sides are epoch {sides[0].epoch} of the run {run}: give two epochs as in --epochs 1 3, or "
            "another run as in --other RUN"
        )
    return sides


def _side(store: PredictionStore, run: RunEntry, member: str | None, epoch: int | None, place: int) -> Side:
    there = sorted({summary.epoch for summary in store.epochs(run.run_id, member=member)})
    of = f"the run {run.name} ({run.run_id[:8]})" if member is None else f"the member {member} of {run.name}"
    if not there:
        raise UserError(f"there are no predictions of {of} in {store.path}: look with `predictions epochs`")
    if epoch is not None and epoch not in there:
        raise UserError(f"there are no predictions of {of} in epoch {epoch}: the epochs are {_listed(there)}")
    return Side(run.run_id, run.name, member, there[place] if epoch is None else epoch)


_Value = TypeVar("_Value")


def _both(values: Sequence[_Value] | None, setting: str) -> tuple[_Value | None, _Value | None]:
    """The value for the left and for the right side."""
    if not values:
        return None, None
    if len(values) > 2:
        raise UserError(f"{setting} has {len(values)} values: give one for both sides, or two")
    return values[0], values[-1]


def _listed(epochs: Sequence[int]) -> str:
    shown = [str(epoch) for epoch in epochs]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:6], "…", shown[-1]])
