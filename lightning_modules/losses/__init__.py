"""Contrastive losses, one a file."""

from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.info_nce import InfoNCE

__all__ = ["ContrastiveLoss", "EmbeddedBatch", "InfoNCE"]
