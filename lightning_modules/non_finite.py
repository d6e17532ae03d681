"""What a training does about a loss or a gradient that is not finite.

One number tells it at every optimiser step: the gradient's norm, which clipping needs anyway. It is taken after the
gradients of all ranks and of all accumulated batches have met, and a loss that is not finite makes its gradient NaN
(`with_bad_gradient_if_bad`), so the number says the same on every rank, and no rank has to ask another.

On a CPU, and wherever a step may have to be left out, it is looked at before the update. Looking waits for a GPU; so
there a run that would only stop looks at it one step later, when it has long been there. What is saved in between is
refused (see `SparseAutoencoding.on_save_checkpoint`).

Each member of a sweep is watched by itself: what is done about one touches no other, unless the run is stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.optim import Optimizer

from datamodules.shards import ActivationBatch
from lightning_modules.functional import is_sharded, placed_like
from run_store import UserError, write_json

Policy = Literal["stop", "skip", "roll_back"]
SNAPSHOT_EVERY_N_STEPS = 100


def with_bad_gradient_if_bad(loss: Tensor) -> Tensor:
    """The loss itself; where it is not finite its gradient is NaN everywhere, even if it would not be."""
    return _BadGradientIfBad.apply(loss)  # type: ignore[no-any-return, no-untyped-call]


class _BadGradientIfBad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return loss.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (loss,) = ctx.saved_tensors
        return torch.where(loss.isfinite(), grad, math.nan)


def bad_rows(activations: Tensor) -> Tensor:
    """Which rows of [b, d] hold a value that is not finite: [n] indices."""
    # by the extremes, which show what is no number or infinite, with no temporary as large as the batch
    finite = activations.amax(dim=1).isfinite() & activations.amin(dim=1).isfinite()
    return (~finite).nonzero().flatten()


def stored_badly(where: str) -> UserError:
    """For rows that came out of the store with a value that is not finite."""
    return UserError(f"{where} holds a value that is not finite: remove the store and extract it again")


class Seen(NamedTuple):
    """A batch of an optimiser step and its loss."""

    loss: Tensor
    batch: ActivationBatch


@dataclass(frozen=True)
class Place:
    """Where in a run a step is."""

    step: int
    """Optimiser steps before it."""
    rank: int
    world_size: int
    describe_row: Callable[[int], str]
    """Where a row of the store comes from, in words."""
    folder: Callable[[], str | None]
    """The run's folder; to be asked on every rank."""
    prefix: str = ""
    """The name of a sweep's member and a slash; nothing of a training without members."""


class Finding:
    """An optimiser step whose number is still to be looked at, or is known to be bad."""

    def __init__(self, norm: Tensor, seen: Sequence[Seen], place: Place) -> None:
        self._norm = norm.detach().to("cpu", non_blocking=norm.is_cuda)
        self._copied = torch.cuda.Event() if norm.is_cuda else None  # type: ignore[no-untyped-call]
        if self._copied is not None:
            self._copied.record()
        self.seen = seen
        self.place = place

    @property
    def norm(self) -> float:
        """The gradient's. Waits until it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return float(self._norm)

    @property
    def is_bad(self) -> bool:
        return not math.isfinite(self.norm)

    def what(self) -> str:
        """Of what what became what: the loss of a batch, else the gradient."""
        losses = [float(loss) for loss, _ in self.seen]
        bad = next((loss for loss in losses if not math.isfinite(loss)), None)
        whose = f" of member {member}" if (member := self.place.prefix.removesuffix("/")) else ""
        return f"the gradient{whose} became {self.norm}" if bad is None else f"the loss{whose} became {bad}"

    def source(self) -> str | None:
        """Where the first row comes from that was not finite to begin with; None when all were."""
        for _, batch in self.seen:
            for row in bad_rows(batch.activations[0])[:1]:
                return self.place.describe_row(int(batch.rows[row]))
        return None

    def save(self) -> Path | None:
        """Writes the rows of the step on this rank, and where they come from, into the run's folder."""
        folder = self.place.folder()
        if folder is None:
            return None
        rank = f".rank-{self.place.rank}" if self.place.world_size > 1 else ""
        path = Path(folder) / "non_finite" / f"{self.place.prefix}step-{self.place.step:08d}{rank}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        batches = [self._describe(*seen) for seen in self.seen]
        # JSON has no NaN
        write_json(path, {"step": self.place.step, "gradient_norm": str(self.norm), "batches": batches})
        return path

    def _describe(self, loss: Tensor, batch: ActivationBatch) -> dict[str, Any]:
        rows = batch.rows.tolist()
        return {
            "loss": str(float(loss)),
            "not_finite_rows": batch.rows[bad_rows(batch.activations[0])].tolist(),
            "rows": rows,
            "provenance": [self.place.describe_row(row) for row in rows],
        }


class Snapshot(NamedTuple):
    """Weights and optimiser as they were before a step, in main memory. Parameters go by their number."""

    step: int
    weights: list[Tensor]
    states: list[dict[str, Any]]

    @classmethod
    def of(cls, step: int, optimizer: Optimizer, parameters: Sequence[Tensor]) -> Snapshot:
        """As they are."""
        states = [{name: _copy(v) for name, v in optimizer.state.get(p, {}).items()} for p in parameters]
        return cls(step, [_copy(parameter) for parameter in parameters], states)

    def held_as(self, parameters: Sequence[Tensor]) -> Snapshot:
        """The same, where ranks hold a part of the parameters each of these."""
        if not any(is_sharded(parameter) for parameter in parameters):
            return self
        weights = [placed_like(own, like) for own, like in zip(self.weights, parameters, strict=True)]
        states = [
            {name: placed_like(v, like) if isinstance(v, Tensor) and v.dim() else v for name, v in own.items()}
            for own, like in zip(self.states, parameters, strict=True)
        ]
        return Snapshot(self.step, weights, states)

    @torch.no_grad()
    def restore(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        """Puts them back; the learning rate and all else that belongs to the schedule goes on."""
        for parameter, weights, saved in zip(parameters, self.weights, self.states, strict=True):
            parameter.copy_(weights)
            state = optimizer.state.pop(parameter, {})
            for name, value in saved.items():
                # into the tensor that is there: an optimiser may want it on a device of its own
                state[name] = state[name].copy_(value) if isinstance(value, Tensor) else value
            if saved:
                optimizer.state[parameter] = state


class NonFiniteWatch:
    """Carries out the policy.

    stop ends the run in one sentence. skip leaves the step's update out: weights and the optimiser's state stay as they
    were, the schedule and the counters of tokens go on. roll_back leaves it out too and goes back to the weights and
    the optimiser's state of the last multiple of 100 steps; what has been read since is not read again. In any case
    RUN_FOLDER/non_finite/step-N.json says which rows the step was made of.

    Args:
        policy: stop, skip or roll_back.
        most_in_a_row: more steps than this left out without a good one between stop the run.
    """

    def __init__(self, policy: Policy, most_in_a_row: int) -> None:
        self.policy = policy
        self.most_in_a_row = most_in_a_row
        self.left_out = 0
        self._in_a_row = 0
        self._seen: list[Seen] = []
        self._unread: Finding | None = None
        self._snapshot: Snapshot | None = None

    def start(self) -> None:
        """Forgets a step that an exception has cut off."""
        self._seen, self._unread = [], None

    def see(self, loss: Tensor, batch: ActivationBatch) -> None:
        """Notes a batch of the step that is being made. It is kept until the step has been looked at."""
        self._seen.append(Seen(loss.detach(), batch))

    def sum_of_losses(self) -> Tensor:
        """Of the step's batches: not finite as soon as one is not."""
        return torch.stack([seen.loss for seen in self._seen]).sum()

    def allows(self, norm: Tensor, place: Place, optimizer: Optimizer, parameters: Sequence[Tensor]) -> bool:
        """Whether the optimiser may take its step; to be asked once before each.

        Args:
            norm: of the gradient, scalar.
            place: the step's.
            optimizer: whose state is rolled back.
            parameters: those that are watched and rolled back.

        Raises:
            UserError: the policy says stop, or too many steps in a row were left out.
        """
        finding = Finding(norm, self._seen, place)
        self._seen = []
        if self.policy == "stop" and self.is_late(norm):
            self.look_back()
            self._unread = finding
            return True
        if finding.is_bad:
            self._leave_out(finding, optimizer, parameters)
            return False
        self._in_a_row = 0
        if self.policy == "roll_back" and (self._snapshot is None or place.step % SNAPSHOT_EVERY_N_STEPS == 0):
            self._snapshot = Snapshot.of(place.step, optimizer, parameters)
        return True

    @staticmethod
    def is_late(norm: Tensor) -> bool:
        """Whether a run that would only stop looks at a norm one step later, because reading it now means to wait."""
        return norm.is_cuda

    def look_back(self) -> None:
        """Looks at a step that has not been looked at yet.

        Raises:
            UserError: it was bad.
        """
        finding, self._unread = self._unread, None
        if finding is not None and finding.is_bad:
            self._stop(finding, finding.save())

    def _leave_out(self, finding: Finding, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        path = finding.save()
        self._in_a_row += 1
        if self.policy == "stop" or self._in_a_row > self.most_in_a_row:
            self._stop(finding, path)
        self.left_out += 1
        done = "it is left out"
        if self.policy == "roll_back" and self._snapshot is not None:
            self._snapshot.restore(optimizer, parameters)
            done = f"it is left out and the weights of step {self._snapshot.step} are back"
        rank_zero_warn(f"{finding.what()} at step {finding.place.step}: {done}{_see(path)}")

    def _stop(self, finding: Finding, path: Path | None) -> None:
        if (where := finding.source()) is not None:
            raise stored_badly(where)
        again = f", the last of {self._in_a_row} steps in a row" if self._in_a_row > 1 else ""
        raise UserError(f"{finding.what()} at step {finding.place.step}{again}: lower the learning rate{_see(path)}")

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        snapshot = None if self._snapshot is None else self._snapshot._asdict()
        return {"left_out": self.left_out, "in_a_row": self._in_a_row, "snapshot": snapshot}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Sequence[Tensor] = ()) -> None:
        """As `state_dict` gave it.

        Args:
            state: plain values and tensors.
            parameters: those that are rolled back, whose way of being held a snapshot takes on.
        """
        self.left_out, self._in_a_row = state["left_out"], state["in_a_row"]
        self._snapshot = None if state["snapshot"] is None else Snapshot(**state["snapshot"]).held_as(parameters)


def _see(path: Path | None) -> str:
    return "" if path is None else f" (its rows: {path})"


def _copy(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    # what ranks have a part of each stays where it is
    return value.detach().clone() if is_sharded(value) else value.detach().to("cpu", copy=True)
