"""Which part of every batch a process reads."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from datamodules.shards.cursor import ALONE, Rank


def rank_of(trainer: Trainer | None) -> Rank:
    """This process among those that share every batch: all, unless the strategy has some read the same rows."""
    if trainer is None:
        return ALONE
    if isinstance(trainer.strategy, ModelParallelStrategy):
        sharing = trainer.strategy.distributed_sampler_kwargs
        return Rank(sharing["rank"], sharing["num_replicas"])
    return Rank(trainer.global_rank, trainer.world_size)
