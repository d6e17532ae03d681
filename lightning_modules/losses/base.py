"""What a contrastive loss is given, and what it gives.

Shapes: b examples of a batch, n negatives of the one that has most, u different texts among them, d width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.functional import widened
from run_store import UserError


class EmbeddedBatch(NamedTuple):
    """A batch of examples whose texts have been embedded, each different text once."""

    texts: Tensor
    """[u, d], of any norm."""
    ids: Tensor
    """[u] int64: the number of each text in the data, the same on every rank."""
    anchors: Tensor
    """[b] int64 places among the u texts."""
    positives: Tensor
    """[b] int64 places."""
    negatives: Tensor
    """[b, n] int64 places; -1 where an example has fewer; n may be 0."""
    scores: Tensor | None = None
    """[b] what a scored pair's similarity is said to be, or [b, 1 + n] what a teacher says of the positive and of each
    negative."""
    guide: Tensor | None = None
    """[u, g] unit-norm embeddings of the same texts by a model that is not trained, which tells false negatives."""


class ContrastiveLoss(nn.Module):
    """Base of the losses: each is a function of embeddings alone, so that a cache of gradients can stand between it
    and the encoder. It computes in float32 or float64, whatever the encoder's precision is.
    """

    def forward(self, batch: EmbeddedBatch) -> Tensor:
        """The loss, a scalar: a mean over the examples of this rank, unless the loss says otherwise.

        Raises:
            UserError: the batch lacks what the loss needs.
        """
        if self.needs_guide and batch.guide is None:
            raise UserError(
                f"{type(self).__name__} drops false negatives by a guide, and the batch has no guide embeddings: give "
                "the model a guide or leave guide_margin out"
            )
        texts, scores, guide = batch.texts, batch.scores, batch.guide if self.needs_guide else None
        with torch.autocast(texts.device.type, enabled=False):
            return self.of(
                batch._replace(
                    texts=widened(texts),
                    scores=None if scores is None else widened(scores).to(texts.device),
                    guide=None if guide is None else widened(guide),
                )
            )

    @abstractmethod
    def of(self, batch: EmbeddedBatch) -> Tensor:
        """The loss of a batch whose floats are float32 or float64, outside of any autocast."""

    @property
    def needs_guide(self) -> bool:
        """Whether `EmbeddedBatch.guide` must be there."""
        return False

    def check_settings(self) -> None:
        """Refuses settings that make no sense together.

        Raises:
            UserError: naming the setting.
        """
