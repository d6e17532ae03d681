"""Between a batch's hook points and an autoencoder's two sides, x and y."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.autoencoders import Normalization, Normalized, Wiring
from run_store import UserError


class Pair(NamedTuple):
    """What an autoencoder reads and what it is to reconstruct."""

    x: Tensor
    """[b, d_in]."""
    y: Tensor
    """[b, d_out]; x itself where they are the same."""
    reconstructed: tuple[Normalized, ...]
    """The hook points of y, each with what undoes its normalisation."""

    def undo(self, reconstruction: Tensor) -> tuple[Tensor, ...]:
        """Brings ŷ [b, d_out] back to the scale of the activations: [b, d] a hook point."""
        parts = torch.split(reconstruction, [normalized.x.shape[1] for normalized in self.reconstructed], dim=1)
        return tuple(normalized.undo(part) for normalized, part in zip(self.reconstructed, parts, strict=True))


class HookPointPair(nn.Module):
    """Normalises every hook point by itself and puts those that a wiring reads, and those that it reconstructs, one
    behind the other.

    Args:
        normalizations: of each hook point, by name; others may share them.
        wiring: says which are read and which reconstructed.
        shapes: names and widths of the hook points, in the order of its activations.

    Raises:
        UserError: the wiring cannot do with these hook points.
    """

    def __init__(self, normalizations: Mapping[str, Normalization], wiring: Wiring, shapes: Mapping[str, int]) -> None:
        super().__init__()
        self.names = tuple(shapes)
        self.sides = wiring.sides(self.names)
        widths = list(shapes.values())
        self.inputs = tuple(widths[place] for place in self.sides.read)
        self.outputs = tuple(widths[place] for place in self.sides.reconstructed)
        self.normalizations = nn.ModuleList(normalizations[name] for name in shapes)

    @property
    def read_names(self) -> tuple[str, ...]:
        """Of the hook points of x."""
        return tuple(self.names[place] for place in self.sides.read)

    @property
    def reconstructed_names(self) -> tuple[str, ...]:
        """Of the hook points of y."""
        return tuple(self.names[place] for place in self.sides.reconstructed)

    def fit(self, activations: Sequence[Tensor]) -> None:
        """Estimates what the normalisations need from a sample, [n, d] a hook point."""
        for normalization, sample in zip(self.normalizations, activations, strict=True):
            normalization.fit(sample)  # type: ignore[operator]

    def forward(self, activations: Sequence[Tensor]) -> Pair:
        """Of a batch's activations, [b, d] a hook point."""
        used = {*self.sides.read, *self.sides.reconstructed}
        normalized = {place: self.normalizations[place](activations[place]) for place in sorted(used)}
        x = _beside([normalized[place].x for place in self.sides.read])
        reconstructed = tuple(normalized[place] for place in self.sides.reconstructed)
        same = self.sides.read == self.sides.reconstructed
        return Pair(x, x if same else _beside([part.x for part in reconstructed]), reconstructed)


def agreed_shapes(found: Mapping[str, int] | None, known: Mapping[str, int] | None) -> dict[str, int]:
    """Names and widths of the hook points, as plain values.

    Args:
        found: what the data has; None without data.
        known: what the weights are for; None while there are none.

    Raises:
        UserError: neither is known, or the widths differ.
    """
    if not found and not known:
        raise UserError("model.shapes is unknown: give it, or load a checkpoint that a training has saved")
    if found and known and list(found.values()) != list(known.values()):
        raise UserError(
            f"the autoencoder's weights are for {_in_words(known)} and the data has {_in_words(found)}: "
            "use the data that the checkpoint was trained on, or leave model.shapes out"
        )
    return {name: int(width) for name, width in (known or found or {}).items()}


def _in_words(shapes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} of width {width}" for name, width in shapes.items())


def _beside(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
