"""What validation and test say of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_modules.functional import Codes
from lightning_modules.metrics import FiringDensity, FractionOfVarianceUnexplained, summarize_density


class Evaluation(nn.Module):
    """Metrics over every row of a split, on the scale of the activations.

    Args:
        outputs: width of each hook point that is reconstructed.
        names: their names.
        d_sae: number of latents.
    """

    def __init__(self, outputs: Sequence[int], names: Sequence[str], d_sae: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.fvu = nn.ModuleList(FractionOfVarianceUnexplained(width) for width in outputs)
        self.without_latents = nn.ModuleList(FractionOfVarianceUnexplained(width) for width in outputs)
        self.firing = FiringDensity(d_sae)

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
        for place, target in enumerate(targets):
            self.fvu[place].update(target, reconstructions[place])  # type: ignore[operator]
            self.without_latents[place].update(target, ablated[place])  # type: ignore[operator]

    def density(self) -> Tensor:
        """[s] share of the rows on which each latent fires."""
        return self.firing.compute()

    def scores(self) -> dict[str, Tensor]:
        """Scalars by name. FVU is the mean over the hook points that are reconstructed, and is told of each where there
        are several; `fvu_without_latents` is what is left unexplained when every latent is 0.
        """
        each = [metric.compute() for metric in self.fvu]  # type: ignore[operator]
        fvu = torch.stack(each).mean()
        ablated = torch.stack([metric.compute() for metric in self.without_latents]).mean()  # type: ignore[operator]
        scores = {"fvu": fvu, "explained_variance": 1 - fvu, "fvu_without_latents": ablated}
        if len(each) > 1:
            scores |= {f"fvu/{name}": value for name, value in zip(self.names, each, strict=True)}
        return scores | summarize_density(self.density())

    def reset(self) -> None:
        """Forgets every row."""
        for metric in (*self.fvu, *self.without_latents, self.firing):
            metric.reset()  # type: ignore[operator]
