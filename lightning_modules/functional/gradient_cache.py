"""GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv
2101.06983): a loss over more texts than fit in memory with their graph.

Shapes: c texts of a chunk, u of all chunks, d width.

Texts are encoded without a graph, chunk by chunk; the loss's gradient by the embeddings is taken at once, and with it
all that the loss is the only one to need; then, in backward, each chunk is encoded again, now with a graph, which that
gradient is sent through before the next chunk's begins. That costs a second forward, and memory for one chunk. The
gradient is that of one graph over everything, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_modules.functional.deferred import deferred

Chunk = TypeVar("Chunk")


class CachedLoss(NamedTuple):
    """A loss, and what it was computed of."""

    loss: Tensor
    """Scalar. Its graph is one node, whose inputs are the parameters."""
    embeddings: Tensor
    """[u, d], without a graph."""


def cached_loss(
    encode: Callable[[Chunk], Tensor],
    chunks: Sequence[Chunk],
    loss: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
) -> CachedLoss:
    """loss(embeddings of all chunks), with a backward that encodes them again.

    Random numbers are drawn anew the same: a chunk's second encoding has the dropout of its first, and backward leaves
    every generator where it found it. So has it the caller's autocast. What a forward counts (a batch norm's running
    mean) it counts twice. Without gradients (torch.no_grad) nothing is encoded twice.

    Args:
        encode: chunk → [c, d]; its gradient reaches `parameters` and nothing else.
        chunks: at least one, each on the device that `encode` wants.
        loss: [u, d], chunks behind one another → scalar. It is given leaf tensors, so it has no parameters of its own.
        parameters: those that require a gradient. One that no chunk uses gets none, as without the cache. If they
            belong to a module in DDP, what is returned has to come out of DDP's forward.
    """
    training = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)
    replay = _Replay(encode, list(chunks), _Precision.of(parameters[0].device.type if parameters else "cpu"))
    embeddings = torch.cat(replay.first_pass({p.device for p in parameters if p.device.type != "cpu"}))
    if not training:
        return CachedLoss(loss(embeddings), embeddings)
    leaf = embeddings.clone().requires_grad_()
    value = loss(leaf)
    (replay.gradient,) = torch.autograd.grad(value, leaf, materialize_grads=True)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return CachedLoss(deferred(value.detach(), partial(replay.second_pass, trained), trained), embeddings)


class _Precision(NamedTuple):
    """The autocast of a moment."""

    kind: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def of(cls, kind: str) -> _Precision:
        return cls(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))

    def again(self) -> torch.autocast:
        # no cache: a weight that is cast without a graph, in the first pass, would be used again where it needs one
        return torch.autocast(self.kind, self.dtype, enabled=self.enabled, cache_enabled=False)


class _RandomState(NamedTuple):
    """Where the generators of the CPU and of some devices stand."""

    cpu: Tensor
    others: dict[torch.device, Tensor]

    @classmethod
    def of(cls, devices: set[torch.device]) -> _RandomState:
        return cls(
            torch.get_rng_state(),
            {device: torch.get_device_module(device).get_rng_state(device) for device in devices},
        )

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        for device, state in self.others.items():
            torch.get_device_module(device).set_rng_state(state, device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Random numbers as they came from here on the first time; afterwards as if none had been drawn."""
        now = _RandomState.of(set(self.others))
        self.restore()
        try:
            yield
        finally:
            now.restore()


@dataclass(eq=False)
class _Replay(Generic[Chunk]):
    """Chunks between their first encoding and their second."""

    encode: Callable[[Chunk], Tensor]
    chunks: list[Chunk]
    precision: _Precision
    gradient: Tensor | None = None
    """[u, d]: of the loss by the embeddings."""

    def first_pass(self, devices: set[torch.device]) -> list[Tensor]:
        """[c, d] of every chunk."""
        self.states: list[_RandomState] = []
        embeddings = []
        with torch.no_grad(), self.precision.again():
            for chunk in self.chunks:
                self.states.append(_RandomState.of(devices))
                embeddings.append(self.encode(chunk))
        self.sizes = [len(part) for part in embeddings]
        return embeddings

    def second_pass(self, parameters: Sequence[Tensor], grad: Tensor) -> list[Tensor | None]:
        """`grad` times the loss's gradient by every parameter."""
        assert self.gradient is not None  # or nothing waits for a backward
        totals: list[Tensor | None] = [None] * len(parameters)
        # scaled before it is sent through the encoder, where a 16-bit gradient could vanish
        parts = torch.split(self.gradient * grad, self.sizes)
        for chunk, state, part in zip(self.chunks, self.states, parts, strict=True):
            with state.again(), self.precision.again(), torch.enable_grad():
                embeddings = self.encode(chunk)
            with torch.autocast(self.precision.kind, enabled=False):
                gradients = torch.autograd.grad(embeddings, parameters, part.to(embeddings.dtype), allow_unused=True)
            del embeddings  # or its graph would be alive while the next one grows
            for place, gradient in enumerate(gradients):
                totals[place] = _sum(totals[place], gradient)
        return totals


def _sum(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    """Of what there is, in a new tensor: a gradient may be a view of something else."""
    if total is None or gradient is None:
        return gradient if total is None else total
    return total + gradient
