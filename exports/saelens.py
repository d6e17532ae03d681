"""SAELens' files (6.x): cfg.json and sae_weights.safetensors, which `sae_lens.SAE.load_from_disk` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from exports.files import Files, Read
from exports.folding import ALL_ROWS_ALIKE, Folded, fold
from exports.unfolding import Start, unfold
from lightning_modules.autoencoders import (
    Activation,
    Gate,
    LargestMagnitudes,
    LargestValues,
    Pursuit,
    Rectifier,
    Thresholds,
)
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
VERSION = "6.54.0"
"""Of the library whose files these are; one below 6 would take its path for old files."""

_SKIP = {"transcoder": "skip_transcoder", "jumprelu_transcoder": "jumprelu_skip_transcoder"}


class _Form(NamedTuple):
    """An architecture's name, its tensors beside W_enc, W_dec and b_dec, and its settings."""

    architecture: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any]


# ---- writing


def to_files(model: SparseAutoencoding, about: Mapping[str, Any]) -> Files:
    """What goes to disk.

    Args:
        model: built and trained.
        about: metadata by SAELens' names, such as model_name.

    Raises:
        UserError: SAELens has no architecture for it.
    """
    folded = fold(model)
    beside = folded.transcodes or folded.W_skip is not None
    if folded.per_row:
        if beside:
            raise UserError(
                "SAELens undoes layer normalisation for plain autoencoders alone, not past a skip: "
                "use --format safetensors"
            )
        folded = _per_row_factor(folded, from_theirs=False)
    form = _transcoder(folded) if beside else _autoencoder(folded.activation, folded.centred_bias)
    tensors = {"W_enc": folded.W_enc.T, "W_dec": folded.W_dec, "b_dec": folded.b_dec, **form.tensors}
    if isinstance(folded.activation, Pursuit):
        del tensors["W_enc"]  # it is W_dec there
    config = {
        "architecture": form.architecture,
        "d_in": folded.W_dec.shape[1] if not beside else folded.W_enc.shape[1],
        "d_sae": folded.W_dec.shape[0],
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not beside,
        "normalize_activations": "layer_norm" if folded.per_row else "none",
        "reshape_activations": "none",
        **form.settings,
        "metadata": {
            "sae_lens_version": VERSION,
            "sae_lens_training_version": None,
            "hook_name": folded.hook_points[0],
            "hook_head_index": None,
            **({"hook_name_out": folded.hook_points[1]} if folded.transcodes else {}),
            **about,
        },
    }
    return Files(CONFIG, config, WEIGHTS, tensors)


def _autoencoder(activation: Activation, bias: Tensor) -> _Form:
    return _FORMS[type(activation)](activation, bias)


def _standard(activation: Rectifier, bias: Tensor) -> _Form:
    return _Form("standard", {"b_enc": bias}, {})


def _topk(activation: LargestValues, bias: Tensor) -> _Form:
    return _Form("topk", {"b_enc": bias}, {"k": activation.k, "rescale_acts_by_decoder_norm": False})


def _abstopk(activation: LargestMagnitudes, bias: Tensor) -> _Form:
    return _Form("abstopk", {"b_enc": bias}, {"k": activation.k, "rescale_acts_by_decoder_norm": False})


def _jumprelu(activation: Thresholds, bias: Tensor) -> _Form:
    return _Form("jumprelu", {"b_enc": bias, "threshold": activation.threshold}, {})


def _gated(activation: Gate, bias: Tensor) -> _Form:
    b_mag = activation.offset + bias * activation.r_mag.exp()
    return _Form("gated", {"b_gate": bias, "b_mag": b_mag, "r_mag": activation.r_mag}, {})


def _matching_pursuit(activation: Pursuit, bias: Tensor) -> _Form:
    settings = {
        "residual_threshold": activation.residual_threshold,
        "max_iterations": activation.steps,
        "stop_on_duplicate_support": False,
    }
    return _Form("matching_pursuit", {}, settings)


_FORMS: dict[type, Callable[..., _Form]] = {
    Rectifier: _standard,
    LargestValues: _topk,
    LargestMagnitudes: _abstopk,
    Thresholds: _jumprelu,
    Gate: _gated,
    Pursuit: _matching_pursuit,
}
_TRANSCODERS: dict[type, str] = {Rectifier: "transcoder", Thresholds: "jumprelu_transcoder"}


def _transcoder(folded: Folded) -> _Form:
    """Also of an autoencoder with a skip: there it is a transcoder from a hook point to itself."""
    architecture = _TRANSCODERS.get(type(folded.activation))
    if architecture is None:
        raise UserError(
            f"SAELens has transcoders and skips for ReLU and JumpReLU alone, and {folded.variant} "
            f"{folded.activation.words}: use --format safetensors"
            + (" or sparsify" if isinstance(folded.activation, LargestValues) else "")
        )
    form = _autoencoder(folded.activation, folded.bias)
    settings = {**form.settings, "d_out": folded.W_dec.shape[1]}
    if folded.W_skip is None:
        return _Form(architecture, form.tensors, settings)
    return _Form(_SKIP[architecture], {**form.tensors, "W_skip": folded.W_skip.T}, settings)


# ---- reading


def from_files(read: Read) -> Start:
    """The model that files of SAELens hold.

    Raises:
        UserError: they hold something that there is no autoencoder for here, or are malformed.
    """
    return unfold(folded_in(read))


def folded_in(read: Read) -> Folded:
    """The map that files of SAELens hold.

    Raises:
        UserError: they hold something that there is no autoencoder for here, or are malformed.
    """
    architecture = read.setting("architecture", str)
    plain = architecture.replace("skip_transcoder", "transcoder")
    is_transcoder = plain in _TRANSCODERS.values()
    if plain not in _ACTIVATIONS:
        raise UserError(
            f"{read.config_path} names the architecture {architecture!r}, which is none of those that can be imported: "
            f"{', '.join([*_ACTIVATIONS, *_SKIP.values()])}"
        )
    per_row = read.choice("normalize_activations", {"none": False, "layer_norm": True}, "none")
    d_in, s = read.setting("d_in", int), read.setting("d_sae", int)
    d_out = read.setting("d_out", int) if is_transcoder else d_in
    W_dec, b_dec = read.tensor("W_dec", s, d_out), read.tensor("b_dec", d_out)
    W_enc = W_dec if plain == "matching_pursuit" else read.tensor("W_enc", d_in, s).T
    activation, bias = _ACTIVATIONS[plain](read, s)
    centred = not is_transcoder and read.setting("apply_b_dec_to_input", bool, True)
    folded = Folded(
        W_enc=W_enc,
        bias=bias - W_enc @ b_dec if centred else bias,
        activation=activation,
        W_dec=W_dec,
        b_dec=b_dec,
        W_skip=read.tensor("W_skip", d_out, d_in).T if architecture != plain else None,
        per_row=per_row,
        hook_points=read.hook_points(is_transcoder),
        variant=architecture,
    )
    if read.setting("rescale_acts_by_decoder_norm", bool, False):
        folded = _with_rescaled_latents(folded)
    return _per_row_factor(folded, from_theirs=True) if per_row else folded


def _read_standard(read: Read, s: int) -> tuple[Activation, Tensor]:
    return Rectifier(), read.tensor("b_enc", s)


def _read_topk(read: Read, s: int) -> tuple[Activation, Tensor]:
    return LargestValues(read.setting("k", int)), read.tensor("b_enc", s)


def _read_abstopk(read: Read, s: int) -> tuple[Activation, Tensor]:
    return LargestMagnitudes(read.setting("k", int)), read.tensor("b_enc", s)


def _read_jumprelu(read: Read, s: int) -> tuple[Activation, Tensor]:
    # relu comes before the threshold there
    return Thresholds(read.tensor("threshold", s).clamp_min(0)), read.tensor("b_enc", s)


def _read_gated(read: Read, s: int) -> tuple[Activation, Tensor]:
    bias, r_mag = read.tensor("b_gate", s), read.tensor("r_mag", s)
    return Gate(r_mag, read.tensor("b_mag", s) - bias * r_mag.exp()), bias


def _read_matching_pursuit(read: Read, s: int) -> tuple[Activation, Tensor]:
    if read.setting("stop_on_duplicate_support", bool, True):
        raise UserError(
            f"{read.config_path}: stop_on_duplicate_support is true, and MatchingPursuit stops by residual_threshold "
            "and its number of steps alone"
        )
    d_in = read.setting("d_in", int)
    norms = torch.linalg.vector_norm(read.tensor("W_dec", s, d_in), dim=1)
    if (norms - 1).abs().max() > ALL_ROWS_ALIKE:
        raise UserError(f"{read.folder / WEIGHTS}: rows of W_dec are not of unit norm, as MatchingPursuit needs them")
    steps = read.setting("max_iterations", int, d_in)
    return Pursuit(steps, read.setting("residual_threshold", float, 0.01)), norms.new_zeros(s)


_ACTIVATIONS: dict[str, Callable[[Read, int], tuple[Activation, Tensor]]] = {
    "standard": _read_standard,
    "topk": _read_topk,
    "abstopk": _read_abstopk,
    "jumprelu": _read_jumprelu,
    "gated": _read_gated,
    "matching_pursuit": _read_matching_pursuit,
    "transcoder": _read_standard,
    "jumprelu_transcoder": _read_jumprelu,
}


def _with_rescaled_latents(folded: Folded) -> Folded:
    """Of latents that are chosen by f_i ‖W_dec[i]‖: those, with rows of unit norm."""
    norms = torch.linalg.vector_norm(folded.W_dec, dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    column = norms[:, None]
    return replace(folded, W_enc=folded.W_enc * column, bias=folded.bias * norms, W_dec=folded.W_dec / column)


def _per_row_factor(folded: Folded, from_theirs: bool) -> Folded:
    """SAELens divides a row by its standard deviation over d − 1 values, LayerNormalization by that over d."""
    d = folded.W_enc.shape[1]
    factor = torch.tensor((d - 1) / d if from_theirs else d / (d - 1), dtype=torch.float64).sqrt()
    return folded.rescaled(factor, factor)
