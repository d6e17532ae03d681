"""What validation and test say of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.functional import Codes
from lightning_modules.metrics import FiringDensity, MeanL1, ReconstructionScores, summarize_density


class Evaluation(nn.Module):
    """Metrics over every row of a split, on the scale of the activations; latents as the autoencoder has them.

    Args:
        outputs: width of each hook point that is reconstructed.
        names: their names.
        d_sae: number of latents.
    """

    def __init__(self, outputs: Sequence[int], names: Sequence[str], d_sae: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.reconstruction = nn.ModuleList(ReconstructionScores(width) for width in outputs)
        self.firing = FiringDensity(d_sae)
        self.l1 = MeanL1()

    def update(
        self, codes: Codes, targets: Sequence[Tensor], reconstructions: Sequence[Tensor], ablated: Sequence[Tensor]
    ) -> None:
        """Takes in a batch.

        Args:
            codes: its latents.
            targets: [b, d] of each hook point.
            reconstructions: [b, d] of each.
            ablated: [b, d] of each, what is reconstructed when every latent is 0.
        """
        self.firing.update(codes)
        self.l1.update(codes)
        for metric, *rows in zip(self.reconstruction, targets, reconstructions, ablated, strict=True):
            metric.update(*rows)  # type: ignore[operator]

    def density(self) -> Tensor:
        """[s] share of the rows on which each latent fires."""
        return self.firing.compute()

    def scores(self) -> dict[str, Tensor]:
        """Scalars by name: those of `ReconstructionScores`, means over the hook points that are reconstructed,
        `explained_variance`, `l1` and what follows from the density. FVU is told of each hook point where there are
        several.
        """
        each = [metric.compute() for metric in self.reconstruction]  # type: ignore[operator]
        scores = {name: torch.stack([of_one[name] for of_one in each]).mean() for name in each[0]}
        scores |= {"explained_variance": 1 - scores["fvu"], "l1": self.l1.compute()}
        if len(each) > 1:
            scores |= {f"fvu/{name}": of_one["fvu"] for name, of_one in zip(self.names, each, strict=True)}
        return scores | summarize_density(self.density())

    def reset(self) -> None:
        """Forgets every row."""
        for metric in (*self.reconstruction, self.firing, self.l1):
            metric.reset()  # type: ignore[operator]
