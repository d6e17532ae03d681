"""Contrastive losses, one a file."""

from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch

__all__ = ["ContrastiveLoss", "EmbeddedBatch"]
