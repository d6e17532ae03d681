"""From a direction in the residual stream to the tokens that it speaks for, past all layers in between.

Shapes: v tokens of the vocabulary, d width of the residual stream, s directions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backbones.loading import has_language_head, has_masked_head, load_backbone

_AT_ONCE = 2**25
"""Scores [s, v] that are kept at once."""


class Unembedding(NamedTuple):
    """The direct way to the scores of tokens: the final norm's gain and the matrix behind it.

    Its division by a length is left out, which is the same for all tokens; of a head that fills gaps, the layer before
    the matrix too, which is not linear.
    """

    weights: Tensor
    """float32 [v, d]; the mean over v is taken away, since what all tokens have in common changes no prediction."""

    @classmethod
    def of(cls, model: str, revision: str | None = None, remote_code_of: str | None = None) -> Unembedding | None:
        """That of a model, or None where it was saved without a head that predicts tokens. Arguments as in
        `load_backbone`.

        Raises:
            UserError: the model cannot be found or loaded, or needs code of its own that nobody asked for.
        """
        causal = has_language_head(model, revision, remote_code_of)
        if not causal and not has_masked_head(model, revision, remote_code_of):
            return None
        backbone = load_backbone(model, revision, remote_code_of, language_head=causal, masked_head=not causal)
        output = backbone.get_output_embeddings()  # type: ignore[no-untyped-call]
        if output is None:
            return None
        weights = output.weight.detach().float()
        if causal:
            weights = weights * final_gain(backbone, weights.shape[1])
        return cls(weights - weights.mean(dim=0))

    def strongest(self, directions: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tokens that directions speak most for, and those that they speak most against.

        Args:
            directions: [s, d].
            count: of each kind.

        Returns:
            Token ids and scores of those for, then of those against: [s, count] each, the strongest first.
        """
        count = min(count, len(self.weights))
        found = []
        for part in torch.split(directions.float(), max(1, _AT_ONCE // len(self.weights))):
            scores = part @ self.weights.T
            up, down = scores.topk(count, dim=1), scores.topk(count, dim=1, largest=False)
            found.append((up.indices, up.values, down.indices, down.values))
        up_tokens, up_scores, down_tokens, down_scores = (torch.cat(column) for column in zip(*found, strict=True))
        return up_tokens, up_scores, down_tokens, down_scores


@torch.no_grad()
def final_gain(backbone: PreTrainedModel, width: int) -> Tensor:
    """[width] by which the norm before the head multiplies each value; ones where there is none.

    It is asked, not read: some norms keep their gain less 1. A vector of +1 and −1 has mean 0 and length √width, so
    that a norm of either kind changes it by gain and bias alone, and the bias goes when the vector is turned around.
    """
    norms = [
        module
        for name, module in backbone.named_modules()
        if "norm" in type(module).__name__.lower()
        and not any(part.isdigit() for part in name.split("."))
        and [tuple(own.shape) for own in module.parameters(recurse=False)][:1] == [(width,)]
    ]
    if not norms:
        return torch.ones(width)
    norm: nn.Module = norms[-1]
    weight = next(norm.parameters())
    probe = torch.ones(1, 1, width, dtype=weight.dtype, device=weight.device)
    probe[..., 1::2] = -1
    half: Tensor = (norm(probe) - norm(-probe)) / 2
    return (half / probe).flatten().float().cpu()
