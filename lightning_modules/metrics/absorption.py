"""Whether general features are lost to special ones that imply them, where it is known which features fire."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Absorption(Metric):
    """How often the latent of a parent is silent where a child fires, whose latent speaks for both (feature absorption,
    Chanin et al. 2024, "A is for Absorption", arXiv 2409.14507).

        absorption     over all pairs of a parent and its child, of the rows where both features fire: the share in
                       which the parent's latent does not fire and the child's does
        missed_alone   of the rows where a parent fires and none of its children does: the share in which the parent's
                       latent does not fire

    The second is what the first is to be compared with: a parent's latent may be silent for other reasons, such as a
    small magnitude.

    Args:
        parents: int64 [n], the parent of each feature, -1 for none.
    """

    full_state_update = False
    is_differentiable = False

    parents: Tensor
    absorbed: Tensor
    together: Tensor
    missed: Tensor
    alone: Tensor

    def __init__(self, parents: Tensor) -> None:
        super().__init__()
        self.register_buffer("parents", parents, persistent=False)
        for name in ("absorbed", "together", "missed", "alone"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, latents: Tensor) -> None:
        """Counts one batch.

        Args:
            features: bool [b, n], which features fire.
            latents: bool [b, n], whether the latent of each does.
        """
        children = (self.parents >= 0).nonzero().flatten()
        parents = self.parents[children]
        both = features[:, children] & features[:, parents]
        self.together += both.sum()
        self.absorbed += (both & latents[:, children] & ~latents[:, parents]).sum()

        has_children = torch.zeros_like(self.parents, dtype=torch.bool).index_fill_(0, parents, True)
        fires_below = torch.zeros_like(features, dtype=torch.int64).index_add_(1, parents, features[:, children].long())
        alone = features & has_children & (fires_below == 0)
        self.alone += alone.sum()
        self.missed += (alone & ~latents).sum()

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name; nan where no such row was seen."""
        return {"absorption": self.absorbed / self.together, "missed_alone": self.missed / self.alone}
