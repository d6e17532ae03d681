"""Contrastive losses, one a file."""

from lightning_modules.losses.angle import AnglE
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.cosent import CoSENT
from lightning_modules.losses.info_nce import InfoNCE
from lightning_modules.losses.margin_mse import MarginMSE
from lightning_modules.losses.matryoshka import Matryoshka
from lightning_modules.losses.triplet import Triplet

__all__ = ["AnglE", "CoSENT", "ContrastiveLoss", "EmbeddedBatch", "InfoNCE", "MarginMSE", "Matryoshka", "Triplet"]
