"""What latents are in some texts, and what of their embeddings no latent says.

Shapes: n texts, t tokens of them all, s = d_sae latents, m of these, d width, E entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_modules.functional import BatchCodes, Fired, SplitVectors


@dataclass(frozen=True)
class TextLatents:
    """n texts as one embedding model pools them. Every token state is x_t = Σ_i g_ti W_i + b_t + e_t, exactly, and
    so is every embedding, since pooling adds up: x = g W + b + e. All of it is in the activations' own scale and, but
    for ids and numbers, float64.

    Attributes:
        W: [s, d] decoder rows; the same tensor in everything that one reader has read.
        tokens: int64 [t] ids, text by text, special ones among them.
        lengths: int64 [n] tokens of each text.
        truncated: bool [n] whether a text was longer than the model reads.
        weights: [t] of the pooling; those of a text sum to 1.
        token_codes: g_ti where it is not 0; `rows` counts the t tokens.
        bias: [n, d] b, pooled.
        error: [n, d] e, pooled: the exact remainder.
        pooled_codes: in place of those that the token codes add up to; None takes these.
    """

    W: Tensor
    tokens: Tensor
    lengths: Tensor
    truncated: Tensor
    weights: Tensor
    token_codes: Fired
    bias: Tensor
    error: Tensor
    pooled_codes: Fired | None = None

    @property
    def text_of_token(self) -> Tensor:
        """int64 [t] which text each token is of."""
        return torch.arange(len(self.lengths)).repeat_interleave(self.lengths)

    @cached_property
    def codes(self) -> Fired:
        """Pooled codes g where a latent fires on any token with weight; `rows` counts the n texts, and within a text
        latents ascend.
        """
        if self.pooled_codes is not None:
            return self.pooled_codes
        rows, latents, values = self.token_codes
        weighed = values * self.weights[rows]
        keys, where = torch.unique(self.text_of_token[rows] * len(self.W) + latents, return_inverse=True)
        pooled = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, where, weighed)
        fires = pooled != 0  # a class token's pooling gives all others the weight 0
        keys = keys[fires]
        return Fired(keys // len(self.W), keys % len(self.W), pooled[fires])

    @cached_property
    def pooled(self) -> Tensor:
        """[n, d] the embeddings, before any normalisation."""
        return decoded(self.codes, len(self.lengths), self.W) + self.bias + self.error

    def split(self, latents: Tensor) -> SplitVectors:
        """The embeddings over some latents.

        Args:
            latents: int64 [m], ascending; all that are in these texts must be among them, as `active` gives them.
        """
        column = torch.searchsorted(latents, self.codes.latents)
        codes = torch.zeros(len(self.lengths), len(latents), dtype=torch.float64)
        codes[self.codes.rows, column] = self.codes.values
        return SplitVectors(codes, self.bias, self.error)

    def on_tokens(self, text: int, latent: int) -> Tensor:
        """[length] what a latent is on each token of a text, unpooled."""
        values = torch.zeros(int(self.lengths[text]), dtype=torch.float64)
        for place, number, value in self.firings(text):
            if number == latent:
                values[place] = value
        return values

    def firings(self, text: int) -> list[tuple[int, int, float]]:
        """Place in the text, latent and unpooled code of all that fires in it, token by token."""
        first = int(self.lengths[:text].sum())
        rows, latents, values = self.token_codes
        bounds = torch.tensor([first, first + int(self.lengths[text])])
        start, stop = torch.searchsorted(rows, bounds).tolist()
        columns = (rows[start:stop] - first, latents[start:stop], values[start:stop])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def tokens_of(self, text: int) -> list[int]:
        """Token ids of a text."""
        first = int(self.lengths[:text].sum())
        return self.tokens[first : first + int(self.lengths[text])].tolist()  # type: ignore[no-any-return]


def active(*texts: TextLatents) -> Tensor:
    """int64 [m], ascending: the latents that are in any of the texts."""
    found: Tensor = torch.unique(torch.cat([each.codes.latents for each in texts]))
    return found


def decoded(codes: Fired, n: int, W: Tensor) -> Tensor:
    """g W [n, d] of codes of n rows; W is [s, d]. A latent may stand several times in a row."""
    least = codes.values.new_tensor(0.0)
    vectors: Tensor = BatchCodes(codes.values, codes.latents, codes.rows, n, len(W), least).decode(W)
    return vectors
