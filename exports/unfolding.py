"""One plain map as a model that can be measured and trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from exports.folding import Folded
from lightning_modules.autoencoders import (
    AbsTopK,
    Autoencoder,
    Gate,
    Gated,
    JumpReLU,
    LargestMagnitudes,
    LargestValues,
    LayerNormalization,
    MatchingPursuit,
    NoNormalization,
    Pursuit,
    Rectifier,
    ReLU,
    Skip,
    Thresholds,
    TopK,
    Transcoder,
)


class Start(NamedTuple):
    """What a model starts from."""

    settings: dict[str, Any]
    """Of `SparseAutoencoding`: those that must be as they are; classes as class_path and init_args."""
    tensors: dict[str, Tensor]
    """By their names in the state_dict of its `Trainee`."""


class _Variant(NamedTuple):
    kind: type[Autoencoder]
    settings: dict[str, Any]
    tensors: dict[str, Tensor]


def unfold(folded: Folded) -> Start:
    """The model that does what the map does. Rows of W_dec have unit norm wherever training keeps them so.

    The mean of y, which FVU in training is measured against, is not known: b_dec stands for it.

    Raises:
        UserError: unit norm would change which latents are chosen.
    """
    wiring = _wiring(folded)
    if not folded.transcodes:
        folded = folded.with_unit_rows()
    # with a wiring the encoder centres x by a buffer, which stays 0
    b_enc = folded.centred_bias if wiring is None else folded.bias
    variant = _VARIANTS[type(folded.activation)](folded.activation, b_enc)
    normalization = LayerNormalization if folded.per_row else NoNormalization
    settings = {
        "autoencoder": _named(variant.kind, d_sae=len(folded.W_dec), **variant.settings, wiring=wiring),
        "normalization": _named(normalization),
        "shapes": _shapes(folded),
    }
    own = {"W_enc": folded.W_enc, "W_dec": folded.W_dec, "b_dec": folded.b_dec, "mean": folded.b_dec, **variant.tensors}
    if folded.W_skip is not None:
        own["wiring.W_skip"] = folded.W_skip
    tensors = {f"autoencoder.{name}": value for name, value in own.items()}
    return Start(settings, tensors | {"started": torch.tensor(True)})


def _wiring(folded: Folded) -> dict[str, Any] | None:
    if folded.transcodes:
        return _named(Transcoder, skip=folded.W_skip is not None)
    return None if folded.W_skip is None else _named(Skip, scale=0.0, affine=True)


def _shapes(folded: Folded) -> dict[str, int]:
    widths = (folded.W_enc.shape[1], folded.W_dec.shape[1])
    return dict(zip(folded.hook_points, widths, strict=True))


def _named(kind: type, **settings: Any) -> dict[str, Any]:
    return {"class_path": f"lightning_modules.autoencoders.{kind.__name__}", "init_args": settings}


def _relu(activation: Rectifier, b_enc: Tensor) -> _Variant:
    return _Variant(ReLU, {}, {"b_enc": b_enc})


def _topk(activation: LargestValues, b_enc: Tensor) -> _Variant:
    return _Variant(TopK, {"k": activation.k}, {"b_enc": b_enc})


def _abs_topk(activation: LargestMagnitudes, b_enc: Tensor) -> _Variant:
    return _Variant(AbsTopK, {"k": activation.k}, {"b_enc": b_enc})


def _jump_relu(activation: Thresholds, b_enc: Tensor) -> _Variant:
    return _Variant(JumpReLU, {}, {"b_enc": b_enc, "threshold": activation.threshold})


def _gated(activation: Gate, b_enc: Tensor) -> _Variant:
    b_mag = activation.offset + b_enc * activation.r_mag.exp()
    return _Variant(Gated, {}, {"b_enc": b_enc, "r_mag": activation.r_mag, "b_mag": b_mag})


def _matching_pursuit(activation: Pursuit, b_enc: Tensor) -> _Variant:
    settings = {"k": activation.steps, "residual_threshold": activation.residual_threshold}
    return _Variant(MatchingPursuit, settings, {})


_VARIANTS: dict[type, Callable[[Any, Tensor], _Variant]] = {
    Rectifier: _relu,
    LargestValues: _topk,
    LargestMagnitudes: _abs_topk,
    Thresholds: _jump_relu,
    Gate: _gated,
    Pursuit: _matching_pursuit,
}
