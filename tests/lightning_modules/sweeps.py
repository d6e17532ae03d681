"""Sweeps of small autoencoders, and the trainings that their members would be alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer

from callbacks import AtomicCheckpointIO
from lightning_modules.autoencoders import (
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    PAnneal,
    ReLU,
    TopK,
)
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding


def adam(parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3)


def trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10**6,
        "gradient_clip_val": 1.0,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings}, callbacks=list(callbacks))


def members() -> dict[str, Member]:
    """Of every kind of difference."""
    return {
        "k3": Member(),
        "k5": Member(TopK(24, 5)),
        "wide": Member(TopK(40, 3)),
        "slow": Member(lr=3e-4),
        "other-seed": Member(seed=7),
        "batch": Member(BatchTopK(24, 3)),
        "relu": Member(ReLU(24, 0.02)),
        "jump": Member(JumpReLU(24)),
        "gated": Member(Gated(24)),
        "p_anneal": Member(PAnneal(24)),
        "prefixes": Member(MatryoshkaBatchTopK(24, 3)),
    }


def sweep(chosen: dict[str, Member] | None = None, **settings: Any) -> SparseAutoencoding:
    torch.manual_seed(0)
    settings = {"optimizer": adam, "dead_after_tokens": 200, **settings}
    return SparseAutoencoding(TopK(24, 3), members=members() if chosen is None else chosen, **settings)


def alone(member: Member, **settings: Any) -> SparseAutoencoding:
    """The training that a member would be by itself."""
    settings = {"optimizer": adam, "dead_after_tokens": 200, **settings}
    if member.lr is not None:
        settings["optimizer"] = lambda parameters: torch.optim.Adam(parameters, lr=member.lr)
    torch.manual_seed(member.seed or 0)
    return SparseAutoencoding(member.autoencoder or TopK(24, 3), **settings)


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same bits."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def logged(fit: Trainer) -> dict[str, float]:
    """What callbacks see of a training's metrics."""
    return {name: float(value) for name, value in fit.callback_metrics.items()}
