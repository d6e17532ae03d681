"""The token states that an embedding model pools, with what a sparse autoencoder of them says of each.

Shapes: c texts of a chunk, t tokens of these that the pooling weighs, s latents, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backbones import Encoder, TextEncoder, resolve
from backbones.chunks import PaddedTexts
from backbones.hook_points import HookPoint, run_through
from datamodules.triplets import TokenisedTexts
from explanations.hook_point import hook_point_that_is_pooled
from lightning_modules.functional import Codes, pooling_weights
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from lightning_modules.trainee import Trainee
from run_store import UserError


class ReadTexts(NamedTuple):
    """c texts, token by token, text by text in the order of the chunk."""

    places: Tensor
    """[c] int64: which of the texts that were given they are."""
    texts: Tensor
    """[t] int64, ascending: which of the c texts each token is of."""
    tokens: Tensor
    """[t] int64 ids."""
    weights: Tensor
    """[t] what the pooling weighs each by; those of a text add up to 1."""
    states: Tensor
    """[t, d] float32."""
    codes: Codes
    """Of the t tokens, as the autoencoder has them."""
    scales: Tensor
    """[t] what normalisation has multiplied each state by: codes divided by it are on the scale of the states."""
    reconstructions: Tensor
    """[t, d] float32, on the scale of the states."""

    @property
    def pooled(self) -> Tensor:
        """[c, d] embeddings, before they are brought to norm 1."""
        return self.pooled_of(self.states)

    def pooled_of(self, rows: Tensor) -> Tensor:
        """[c, d] of what stands in the place of the states [t, d]."""
        pooled = rows.new_zeros(len(self.places), rows.shape[1])
        return pooled.index_add_(0, self.texts, rows * self.weights.unsqueeze(1))


class StateReader:
    """Reads texts with an encoder and an autoencoder of its final token states.

    Args:
        encoder: built; its weights may change between two readings.
        model: an autoencoder of one hook point, on the encoder's device.

    Raises:
        UserError: the encoder is one of several models or pools by the maximum, or the autoencoder is of several hook
            points or of another width.
    """

    def __init__(self, encoder: Encoder, model: SparseAutoencoding) -> None:
        if not isinstance(encoder, TextEncoder):
            raise UserError(
                f"latents of token states are read of one model, and encoder {type(encoder).__name__} is made of "
                "several: take a TextEncoder"
            )
        if encoder.pooling == "max":
            raise UserError("pooling max is no weighted mean of token states, so latents do not add up to embeddings")
        self.encoder = encoder
        self.trainee = single_state(model)
        ((self.hook_point, width),) = self.trainee.shapes.items()
        if width != encoder.width:
            raise UserError(
                f"the autoencoder reads {self.hook_point} of width {width}, and the encoder's states have "
                f"{encoder.width}: choose an autoencoder of this encoder's states"
            )

    @torch.no_grad()
    def read(self, texts: Sequence[TokenisedTexts]) -> Iterator[ReadTexts]:
        """Yields the texts in chunks, longest first.

        Args:
            texts: those of the encoder's tokenisation, on its device.

        Raises:
            UserError: what passes at the autoencoder's hook point is not what the encoder pools.
        """
        backbone = self.encoder.backbone
        assert backbone is not None
        point = resolve(backbone, [self.hook_point])[self.hook_point]
        for chunk in self.encoder.chunks(texts):
            padded = chunk.texts[0]
            weights = pooling_weights(padded.real, self.encoder.pooling).float()
            kept = weights > 0
            states = self._states(backbone, point, padded)[kept].float()
            pair = self.trainee.pair([states])
            codes, (reconstructions,) = self.trainee.reconstructed(pair)
            scales = pair.reconstructed[0].scale.expand(len(states), 1).squeeze(1)
            owners = torch.arange(len(weights), device=weights.device).unsqueeze(1).expand_as(weights)[kept]
            tokens = padded.tokens[kept]
            yield ReadTexts(chunk.places, owners, tokens, weights[kept], states, codes, scales, reconstructions.float())

    def _states(self, backbone: nn.Module, point: HookPoint, texts: PaddedTexts) -> Tensor:
        """[c, l, d] at the hook point, which must be the last hidden states."""
        passed: list[Tensor] = []
        with self.encoder.arithmetic(texts.tokens.device):
            output = run_through(
                backbone, {self.hook_point: point}, lambda _, x: passed.append(x), self.encoder.inputs(texts)
            )
        last: Tensor = output.last_hidden_state
        if passed[0].shape != last.shape or not torch.equal(passed[0][texts.real], last[texts.real]):
            raise UserError(
                f"hook point {self.hook_point!r} is not what the encoder pools: train the autoencoder on "
                f"{hook_point_that_is_pooled(self.encoder, texts)}"
            )
        # an inference tensor could not be kept or changed
        return passed[0].clone()


def single_state(model: SparseAutoencoding) -> Trainee:
    """The autoencoder of a model that reads and reconstructs one hook point.

    Raises:
        UserError: it is of several, or there are several autoencoders.
    """
    trainee = model.only
    sides = trainee.pair.sides
    if len(trainee.shapes) != 1 or sides.read != sides.reconstructed:
        raise UserError(
            f"the autoencoder is of the hook points {', '.join(trainee.shapes)}: choose one that reads the encoder's "
            "final token states and reconstructs them"
        )
    return trainee
