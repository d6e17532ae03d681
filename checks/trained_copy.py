"""Training on one batch that leaves the model as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim import Optimizer

from backbones.encoder import Encoder
from checks.snippets import device_of
from datamodules.triplets import TokenisedTexts, TripletBatch
from lightning_modules.losses import ContrastiveLoss, EmbeddedBatch

MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]


class TrainedCopy:
    """A copy of an encoder and a loss that is trained on one batch.

    Args:
        encoder: A built one; it stays as it is.
        loss: Stays as it is.
        make_optimizer: Makes the optimiser from the parameters that are trained.
        batch: On any device.
    """

    def __init__(
        self, encoder: Encoder, loss: ContrastiveLoss, make_optimizer: MakeOptimizer, batch: TripletBatch
    ) -> None:
        device = device_of(encoder)
        self._encoder = copy.deepcopy(encoder)
        self._loss = copy.deepcopy(loss).to(device)
        self._batch = _on(device, batch)
        self._guide: Tensor | None = None
        if loss.needs_guide:
            with torch.no_grad():
                self._guide = normalize(self._encoder.eval().encode(self._batch.texts), dim=1)
        parameters = [*self._encoder.parameters(), *self._loss.parameters()]
        self._optimizer = make_optimizer([parameter for parameter in parameters if parameter.requires_grad])

    @torch.no_grad()
    def measure(self) -> float:
        """The loss, without dropout."""
        self._encoder.eval()
        return float(self._forward())

    def step(self) -> None:
        """Goes one step of the optimiser."""
        self._encoder.train()
        torch.autograd.backward(self._forward())
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _forward(self) -> Tensor:
        batch, texts = self._batch, self._encoder.encode(self._batch.texts)
        embedded = EmbeddedBatch(
            texts, batch.ids, batch.anchors, batch.positives, batch.negatives, batch.scores, self._guide
        )
        value: Tensor = self._loss(embedded)
        return value


def _on(device: torch.device, batch: TripletBatch) -> TripletBatch:
    return TripletBatch(
        tuple(TokenisedTexts(*(part.to(device) for part in texts)) for texts in batch.texts),
        *(None if part is None else part.to(device) for part in batch[1:]),  # type: ignore[arg-type]
    )
