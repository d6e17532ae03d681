"""What is left of a model's own output when something else passes at its hook points."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchmetrics import Metric

from datamodules.text import TokenBatch, real_tokens
from lightning_modules.functional import Pooling, next_token_sums, pooled, share_recovered

Way = Literal["clean", "spliced", "zero_ablation", "mean_ablation"]
"""What passes: the activations themselves, their reconstruction, 0, or the mean activation."""
WAYS: tuple[Way, ...] = get_args(Way)


class SplicedLanguageModel(Metric):
    """Cross-entropy of the next token and divergence from the clean model, means over predicted tokens, in nats.

    Predicted are the tokens of documents; special tokens, padding and what a context repeats of the one before are not.
    """

    full_state_update = False
    is_differentiable = False

    cross_entropies: Tensor
    divergences: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("cross_entropies", "divergences"):
            self.add_state(name, torch.zeros(len(WAYS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(len(WAYS), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, way: Way, output: Tensor, clean: Tensor, batch: TokenBatch) -> None:
        """Takes in one reading of a batch.

        Args:
            way: what passed in it.
            output: logits [batch, length, vocabulary].
            clean: those of the clean reading.
            batch: what was read.
        """
        tokens, counted = (column.to(output.device) for column in (batch.tokens, batch.positions >= 0))
        sums, place = next_token_sums(output, clean, tokens, counted), WAYS.index(way)
        self.cross_entropies[place] += sums.cross_entropy.to(self.device)
        self.divergences[place] += sums.divergence.to(self.device)
        self.tokens[place] += sums.tokens.to(self.device)

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name: `ce_*` of each way, `kl` of the spliced model and of the ablated ones, and the share of the
        loss that is recovered, against zero ablation (`ce_loss_score`) and against mean ablation.
        """
        losses = dict(zip(WAYS, (self.cross_entropies / self.tokens).float(), strict=True))
        divergences = dict(zip(WAYS, (self.divergences / self.tokens).float(), strict=True))
        return {
            **{f"ce_{way}": losses[way] for way in WAYS},
            "kl": divergences["spliced"],
            **{f"kl_{way}": divergences[way] for way in WAYS[2:]},
            "ce_loss_score": share_recovered(losses["clean"], losses["spliced"], losses["zero_ablation"]),
            "ce_loss_score_mean_ablation": share_recovered(losses["clean"], losses["spliced"], losses["mean_ablation"]),
        }


class SplicedEmbedding(Metric):
    """Cosine between the final embedding of a context and that of the clean model, mean over contexts.

    Args:
        pooling: how the last hidden states become one vector.
    """

    full_state_update = False
    is_differentiable = False

    cosines: Tensor
    contexts: Tensor

    def __init__(self, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.add_state("cosines", torch.zeros(len(WAYS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("contexts", torch.zeros(len(WAYS), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, way: Way, output: Tensor, clean: Tensor, batch: TokenBatch) -> None:
        """Takes in one reading of a batch.

        Args:
            way: what passed in it.
            output: last hidden states [batch, length, d].
            clean: those of the clean reading.
            batch: what was read.
        """
        real, place = real_tokens(batch.tokens, batch.lengths).to(output.device), WAYS.index(way)
        cosines = cosine_similarity(pooled(output, real, self.pooling), pooled(clean, real, self.pooling))
        self.cosines[place] += cosines.double().sum().to(self.device)
        self.contexts[place] += len(output)

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name: `embedding_cosine` of the spliced model and of the ablated ones, and how far the spliced
        one is on the way from the ablated one to the clean one, from zero ablation (`embedding_score`) and from mean
        ablation.
        """
        cosines = dict(zip(WAYS, (self.cosines / self.contexts).float(), strict=True))
        spliced, same = cosines["spliced"], torch.ones_like(cosines["spliced"])
        return {
            "embedding_cosine": spliced,
            **{f"embedding_cosine_{way}": cosines[way] for way in WAYS[2:]},
            "embedding_score": share_recovered(same, spliced, cosines["zero_ablation"]),
            "embedding_score_mean_ablation": share_recovered(same, spliced, cosines["mean_ablation"]),
        }
