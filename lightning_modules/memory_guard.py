"""Training steps that go on when memory runs out.

A batch that does not fit is computed in halves, then quarters, down to single rows, with the same gradient to rounding:
the loss of a batch is a sum over rows over quantities of the whole batch (see `WholeBatch`), which are measured first.

While nothing runs out, a step is what it would be without the guard: one forward, one backward, the same bits. Both may
run out. So that a failure in the middle of backward leaves nothing half added to `.grad`, the loss handed to Lightning
has no graph but one node, whose backward takes the gradient of all parameters at once and only then passes it on, to
whatever waits there: accumulation, clipping, a GradScaler, DDP's reduction.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import Parameter

from lightning_modules.autoencoders import Autoencoder, LossTerm, Whole, WholeBatch, whole_of_ranks
from lightning_modules.functional import Deferred, deferred, whole_gradient
from run_store import UserError

T = TypeVar("T")
NO_LIMIT = 2**62
"""Of rows that are computed at once, as a number that is larger than any."""
SAYS_SO_IN_TEXT = ("can't allocate memory", "not enough memory", "bad_alloc", "ALLOC_FAILED", "out of memory")
"""How libraries that raise a plain RuntimeError put it: torch's CPU allocator, C++, cuBLAS and others."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an allocation failed, on a device or in main memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in SAYS_SO_IN_TEXT)


class Step(NamedTuple):
    """What a training step has come to. Nothing of it has a graph, except that of `loss`, for one backward."""

    loss: Tensor
    """Scalar."""
    terms: dict[str, Tensor]
    """The loss terms before they are weighed, scalars by name."""
    fvu: Tensor
    """Scalar, of the reconstruction, whatever unit the loss is in."""
    firing_counts: Tensor
    """[s] int64: in how many rows each latent fired."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What a training step is made of."""

    autoencoder: Autoencoder
    x: Tensor
    """[b, d_in]."""
    y: Tensor
    """[b, d_out]: what is reconstructed."""
    dead: Tensor | None
    """[n] numbers of the latents that count as dead, None when there are none."""
    total: Callable[[dict[str, LossTerm]], Tensor]
    """Weighs and adds loss terms."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """The precision that the forward was called in."""

    @classmethod
    def of(
        cls,
        autoencoder: Autoencoder,
        x: Tensor,
        dead: Tensor | None,
        total: Callable[..., Tensor],
        y: Tensor | None = None,
    ) -> Batch:
        """With the precision of the caller; y is x by default."""
        kind = x.device.type
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        # no cache: a weight that is cast without a graph, for `measure`, would be used again where it needs one
        return cls(
            autoencoder,
            x,
            x if y is None else y,
            dead,
            total,
            lambda: torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False),
        )

    @property
    def parameters(self) -> list[Parameter]:
        """In the order of the gradients."""
        return [parameter for parameter in self.autoencoder.parameters() if parameter.requires_grad]

    def forward(self, x: Tensor, y: Tensor, whole: Whole) -> Step:
        """Of the batch, or of a part of it; the loss has its whole graph."""
        result = self.autoencoder.training_pass(x, self.dead, whole, y)
        terms = {name: term.value.detach() for name, term in result.terms.items()}
        return Step(self.total(result.terms), terms, result.fvu, result.codes.firing_counts())

    def measured(self, size: int) -> WholeBatch:
        """What the loss divides by, with no more than `size` rows in memory at once."""
        with self.autocast(), torch.no_grad():
            wholes = (self.autoencoder.measure(x, self.dead, None, y) for x, y in self._parts(size))
            return reduce(WholeBatch.merged, wholes)

    def measured_of_nothing(self) -> WholeBatch:
        """As `measured`, of no rows: what has the right shapes and takes no memory."""
        x, y = self.x[:0], self.y[:0]
        with self.autocast(), torch.no_grad():
            return self.autoencoder.measure(x, self.dead, y, y)

    def _parts(self, size: int) -> list[tuple[Tensor, Tensor]]:
        return list(zip(torch.split(self.x, size), torch.split(self.y, size), strict=True))

    def in_parts(self, size: int, grad: Tensor, whole: WholeBatch) -> tuple[Step, list[Tensor]]:
        """The step and `grad` times its gradient, with no more than `size` rows in memory at once; `whole` is what the
        loss divides by.
        """
        parts = self._parts(size)
        step, gradients = self._part(*parts[0], whole, grad)
        for x, y in parts[1:]:
            other, other_gradients = self._part(x, y, whole, grad)
            terms = {name: value + other.terms[name] for name, value in step.terms.items()}
            counts = step.firing_counts + other.firing_counts
            step = Step(step.loss + other.loss, terms, step.fvu + other.fvu, counts)
            for gradient, other_gradient in zip(gradients, other_gradients, strict=True):
                gradient += other_gradient
        return step, gradients

    def _part(self, x: Tensor, y: Tensor, whole: WholeBatch, grad: Tensor) -> tuple[Step, list[Tensor]]:
        with self.autocast(), torch.enable_grad():
            step = self.forward(x, y, whole)
        gradients = gradients_of(step.loss, self.parameters, grad)
        return step._replace(loss=step.loss.detach()), gradients


def gradients_of(loss: Tensor, parameters: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
    """grad · ∂loss/∂p for every parameter p, zeros where the loss does not depend on it."""
    with torch.autocast(loss.device.type, enabled=False):
        gradients = torch.autograd.grad(loss, parameters, grad.to(loss.dtype), materialize_grads=True)
    return [whole_gradient(gradient, parameter) for gradient, parameter in zip(gradients, parameters, strict=True)]


@contextmanager
def memory_told(doing: str) -> Iterator[None]:
    """Around what cannot be done in parts.

    Raises:
        UserError: memory ran out in it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        raise UserError(
            f"memory ran out while {doing}: lower data.batch_size or model.autoencoder.d_sae, or give the process more "
            "memory"
        ) from error


class MemoryGuard:
    """Computes training steps in as many parts as memory asks for.

    The size that was found is kept for the rest of the run and saved with it. It never grows again: parts round
    differently from the whole, so a run that tried now and then would not be the same twice.

    Each rank has a size of its own, since the gradient does not depend on it: nobody is asked at every step. What is
    logged and saved is the smallest. A rank that cannot go on at all stops; whoever launched it ends the others.
    Ranks that share the latents meet in the middle of a step: there the first that runs out of memory ends the run.

    Args:
        rows_at_once: rows of a batch that are computed at once from the start; None begins with whole batches.
    """

    def __init__(self, rows_at_once: int | None = None) -> None:
        self.rows_at_once = rows_at_once
        self._ranks: Any = None

    def start(self) -> None:
        """To be called on every rank once they are connected."""
        self._ranks = None
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            # of their own, on the CPU: asking a GPU would wait for it at every step
            self._ranks = distributed.new_group(backend="gloo")

    def step(self, batch: Batch, loss_scale: Callable[[], float] = lambda: 1.0) -> Step:
        """Loss terms and counts of a batch, and a loss for one backward: see `forward`."""
        step, loss = self.forward(batch, loss_scale)
        return step._replace(loss=deferred(*loss))

    def forward(self, batch: Batch, loss_scale: Callable[[], float] = lambda: 1.0) -> tuple[Step, Deferred]:
        """Loss terms and counts of a batch, none of which has a graph, and how to come to the loss's gradient.

        Args:
            batch: of at least one row.
            loss_scale: what the loss is multiplied by before backward to keep a 16-bit gradient from vanishing.

        Raises:
            UserError: memory ran out and cannot be made do with.
        """
        pending = _Pending(self, batch)
        step = self.within_memory(
            batch, self.rows_at_once, lambda size: pending.forward(size, loss_scale), pending.give_up
        )
        step = step._replace(loss=step.loss.detach())
        return step, Deferred(step.loss, pending.backward, batch.parameters)

    def within_memory(
        self, batch: Batch, size: int | None, attempt: Callable[[int], T], give_up: Callable[[], None] = lambda: None
    ) -> T:
        """attempt(rows at once) for the largest size, halved as often as memory runs out, that succeeds; where none
        does, give_up() comes before the refusal.

        Raises:
            UserError: see `forward`.
        """
        rows = batch.x.shape[0]
        size, done = min(size or rows, rows), None
        while done is None and size:
            try:
                done = attempt(size)
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                if batch.autoencoder.mesh is not None:
                    raise UserError(
                        f"memory ran out on {size} rows, and ranks that share the latents cannot cut a batch on the "
                        "way: lower data.batch_size, or set model.rows_at_once"
                    ) from error
                size = -(-size // 2) if size > 1 and batch.autoencoder.rows_are_independent else 0
        if done is None:
            give_up()
            raise UserError(self._refusal(batch))
        if size < min(self.rows_at_once or rows, rows):
            self.rows_at_once = size
            warnings.warn(
                f"memory ran out on a batch of {rows} rows: from here on it is computed {size} rows at a time, which "
                "gives the same gradient and may be slower",
                stacklevel=2,
            )
        return done

    @property
    def shares_batches(self) -> bool:
        """Whether a batch is that of several ranks."""
        return self._ranks is not None

    def agreed(self) -> int | None:
        """Takes the smallest size that any rank needed, and returns it. To be asked on every rank."""
        if self._ranks is not None:
            sizes = torch.tensor(self.rows_at_once or NO_LIMIT)
            distributed.all_reduce(sizes, distributed.ReduceOp.MIN, group=self._ranks)
            smallest = int(sizes)
            self.rows_at_once = None if smallest == NO_LIMIT else smallest
        return self.rows_at_once

    def state_dict(self) -> dict[str, int | None]:
        """Plain values. To be asked on every rank, as Lightning does when it saves."""
        return {"rows_at_once": self.agreed()}

    def load_state_dict(self, state: Mapping[str, int | None]) -> None:
        """As `state_dict` gave it; what was set smaller since stays."""
        sizes = [size for size in (self.rows_at_once, state["rows_at_once"]) if size is not None]
        self.rows_at_once = min(sizes, default=None)

    @staticmethod
    def _refusal(batch: Batch) -> str:
        if batch.autoencoder.rows_are_independent:
            return "memory ran out on a single row: lower model.autoencoder.d_sae or give the process more memory"
        return (
            f"memory ran out on a batch of {batch.x.shape[0]} rows, and {type(batch.autoencoder).__name__} selects "
            "over the whole batch, which cannot be cut: lower data.batch_size"
        )


class _Pending:
    """A step between its forward and its backward: the graph of the whole batch, or the gradients of its parts.

    The ranks that share a batch exchange what they have measured of it once a step, each when it has come so far: a
    rank that has to begin anew afterwards goes on with what it knows, and one that cannot begin at all takes part too.
    """

    def __init__(self, guard: MemoryGuard, batch: Batch) -> None:
        self.guard = guard
        self.batch = batch
        self.loss: Tensor | None = None
        self.gradients: list[Tensor] | None = None
        self.whole: WholeBatch | None = None
        self.scale = 1.0

    def forward(self, size: int, loss_scale: Callable[[], float]) -> Step:
        if size >= self.batch.x.shape[0]:
            step = self.batch.forward(self.batch.x, self.batch.y, self._of_all)
            self.loss = step.loss
        else:
            # at once, so that the parts' forward is not needed again; the same gradient serves every `grad` of backward
            self.scale = loss_scale()
            step, self.gradients = self._in_parts(size, self.batch.x.new_tensor(self.scale))
        return step

    def give_up(self) -> None:
        """Keeps the others from waiting for what this rank will not measure."""
        if self.whole is None:
            self._of_all(self.batch.measured_of_nothing())

    def backward(self, grad: Tensor) -> list[Tensor]:
        """`grad` times the gradient of every parameter."""
        # a graph that stands can be used even if another rank could not make one
        size = None if self.loss is not None else self.guard.rows_at_once
        return self.guard.within_memory(self.batch, size, lambda size: self._gradients(size, grad))

    def _gradients(self, size: int, grad: Tensor) -> list[Tensor]:
        if self.gradients is not None:
            return [gradient.mul_(grad / self.scale) for gradient in self.gradients]
        if self.loss is not None:
            loss, self.loss = self.loss, None  # whatever happens, its memory is free afterwards
            return gradients_of(loss, self.batch.parameters, grad)
        return self._in_parts(size, grad)[1]

    def _in_parts(self, size: int, grad: Tensor) -> tuple[Step, list[Tensor]]:
        whole = self._of_all(self.batch.measured(size)) if self.whole is None else self.whole
        return self.batch.in_parts(size, grad, whole)

    def _of_all(self, own: WholeBatch) -> WholeBatch:
        """What the loss divides by, given what was measured of this rank's rows."""
        if self.whole is None:
            self.whole = whole_of_ranks(own) if self.guard.shares_batches else own
        return self.whole
