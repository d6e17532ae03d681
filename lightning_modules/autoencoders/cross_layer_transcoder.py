"""Cross-layer transcoder (Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models",
Anthropic).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.autoencoders.wiring import Revival, Sides, Wiring, random_unit_rows
from lightning_modules.functional import Codes
from run_store import UserError


class CrossLayerTranscoder(Wiring):
    """A transcoder of all layers at once. Every latent belongs to one layer l', reads what enters the block of that
    layer and writes to what leaves its block and those of all later layers:

        f_l' = σ((x_l' − x̄_l') W_enc,l'ᵀ + b_enc,l'),  ŷ_l = Σ_{l' ≤ l} f_l' W_dec^{l'→l} + b_dec,l

    The first half of the data's hook points are the inputs x_1 … x_L, the second half the outputs y_1 … y_L, both in
    the order of the layers. The d_sae latents are split evenly over the layers, those of the first layer first. W_enc
    [s, d] has for each latent a row of its own layer's width; W_dec [s, L d] has the blocks W_dec^{l'→l}, and those
    with l < l' are 0, never multiplied and never moved.

    Start, lengths of rows, penalties (on f_i times the norm of the latent's whole row) and centring are those of
    `Transcoder`: W_dec is 0 and b_dec the middle of y at first.
    """

    unit_norm = False
    same_space = False
    centered_on_b_dec = False
    needs_pre_activations = True
    shardable = False

    layers: int
    """L; known after `build`."""
    latents_per_layer: int
    """d_sae / L; known after `start`."""

    def sides(self, hook_points: Sequence[str]) -> Sides:
        count = len(hook_points)
        if count == 0 or count % 2:
            raise UserError(
                f"a cross-layer transcoder needs an output for every input, and the data gives {count} hook points "
                f"({', '.join(hook_points)}): set data.hook_points to the inputs of all layers and then, in the same "
                "order, their outputs"
            )
        return Sides(tuple(range(count // 2)), tuple(range(count // 2, count)))

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        if len({*inputs}) > 1 or len({*outputs}) > 1:
            raise UserError(
                f"a cross-layer transcoder's inputs have the widths {_listed(inputs)} and its outputs "
                f"{_listed(outputs)}: set data.hook_points to inputs of one width and outputs of one width"
            )
        super().build(inputs, outputs)
        self.layers = len(inputs)

    def start(self, d_sae: int, held: range | None = None) -> tuple[Tensor, Tensor]:
        """W_enc [s, d] and W_dec [s, L d].

        Raises:
            UserError: the latents cannot be split evenly.
        """
        if d_sae % self.layers:
            raise UserError(
                f"d_sae is {d_sae} and the data has {self.layers} layers: set model.autoencoder.d_sae to a multiple of "
                f"{self.layers}"
            )
        self.latents_per_layer = d_sae // self.layers
        return random_unit_rows(d_sae, self.inputs[0], held), torch.zeros(d_sae, sum(self.outputs))

    def encoder_bias(self, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
        return self.project(-self.center[None], W_enc, b_enc)[0]

    def project(self, x: Tensor, W_enc: Tensor, bias: Tensor, latents: Tensor | None = None) -> Tensor:
        by_layer = torch.einsum("bld,lnd->bln", self._by_layer(x), W_enc.view(self.layers, -1, self.inputs[0]))
        z = by_layer.flatten(1) + bias
        return z if latents is None else z[:, latents]

    def decode(self, codes: Codes, W_dec: Tensor) -> Tensor:
        f = codes.dense()
        # split, not sliced: the gradients of the columns are put side by side instead of added to one another
        columns = torch.split(W_dec, list(self.outputs), dim=1)
        writers = [self.latents_per_layer * (layer + 1) for layer in range(self.layers)]
        parts = [f[:, :count] @ block[:count] for count, block in zip(writers, columns, strict=True)]
        return torch.cat(parts, dim=1)

    def revival(self, latents: Tensor, x: Tensor, error: Tensor, b_dec: Tensor) -> Revival:
        rows = torch.arange(len(latents), device=latents.device)
        own = self._by_layer(x - self.center)[rows, latents // self.latents_per_layer]
        return Revival(nn.functional.normalize(own, dim=1), torch.zeros_like(error))

    def _by_layer(self, x: Tensor) -> Tensor:
        """x [b, L d] as [b, L, d]."""
        return x.view(len(x), self.layers, self.inputs[0])


def _listed(widths: Sequence[int]) -> str:
    return ", ".join(map(str, widths))
