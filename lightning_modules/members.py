"""What the members of a sweep may set for themselves, and how their figures are named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat
from torch import Tensor

from lightning_modules.autoencoders import Autoencoder
from lightning_modules.functional import ranks, sum_over_ranks
from run_store import UserError

Figures: TypeAlias = dict[str, Tensor | float]
"""Scalars by name."""


@dataclass
class Member:
    """One autoencoder of a sweep. What it leaves out is as the model has it.

    Args:
        autoencoder: the variant with its settings; by default that of the model.
        lr: learning rate, at its height; by default that of the optimiser.
        seed: what its weights are drawn from; by default the same random numbers as those of a training of its own.
        hook_points: which of the data's hook points it sees, in this order, by the data's names; all by default.
    """

    autoencoder: Autoencoder | None = None
    lr: PositiveFloat | None = None
    seed: NonNegativeInt | None = None
    hook_points: list[str] | None = None


def refuse_unknown_hook_points(wanted: Collection[str], available: Collection[str]) -> None:
    """Makes sure that the data has what a member is to see.

    Raises:
        UserError: it lacks one of the hook points, none is named, or one is named twice.
    """
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"hook_points is [{', '.join(wanted)}]: name at least one, each once, or leave it out")
    if missing := [name for name in wanted if name not in available]:
        raise UserError(
            f"hook_points names {', '.join(missing)}, and the data has {', '.join(available)}: name those of the data"
        )


@contextmanager
def telling(prefix: str) -> Iterator[None]:
    """Around what may be refused of one member: the sentence begins with its name.

    Args:
        prefix: its name and a slash; nothing of a training without members.
    """
    try:
        yield
    except UserError as error:
        if not prefix:
            raise
        raise UserError(f"member {prefix.removesuffix('/')}: {error}") from error


def mean_over_ranks(figures: Mapping[str, Figures]) -> dict[str, Figures]:
    """Each of some members' scalars, averaged over the ranks, in one exchange; all ranks must ask, with the same names.

    Args:
        figures: of each member, by its prefix.
    """
    if ranks() == 1:
        return dict(figures)
    values = [value for own in figures.values() for value in own.values()]
    device = next((value.device for value in values if isinstance(value, Tensor)), None)
    stacked = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in values])
    means = iter((sum_over_ranks(stacked) / ranks()).float())
    return {prefix: dict(zip(own, means, strict=False)) for prefix, own in figures.items()}


def under_names(figures: Mapping[str, Figures]) -> Figures:
    """Scalars of members under one name each.

    Args:
        figures: of each member, by its prefix.

    Returns:
        Every figure under its member's prefix, and under its own name the mean over the members, where all have it. Of
        one without a prefix what it has.
    """
    first, *others = figures.values()
    shared = [name for name in first if all(name in other for other in others)]
    named = {f"{prefix}{name}": value for prefix, own in figures.items() for name, value in own.items()}
    return named | {name: _mean([own[name] for own in figures.values()]) for name in shared}


def _mean(values: list[Tensor | float]) -> Tensor | float:
    if len(values) == 1:
        return values[0]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        return sum(float(value) for value in values) / len(values)
    return torch.stack(
        [torch.as_tensor(value, dtype=torch.float32, device=tensors[0].device) for value in values]
    ).mean()
