"""sparsify's files (1.x): cfg.json and sae.safetensors, which `sparsify.SparseCoder.load_from_disk` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exports.files import Files, Read
from exports.folding import Folded, fold
from exports.unfolding import Start, unfold
from lightning_modules.autoencoders import LargestValues
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"


def to_files(model: SparseAutoencoding, about: Mapping[str, Any]) -> Files:
    """What goes to disk.

    Args:
        model: built and trained.
        about: metadata, which stands under a name of its own: the library passes over what it does not know.

    Raises:
        UserError: sparsify cannot hold it.
    """
    folded = fold(model)
    if not isinstance(folded.activation, LargestValues):
        raise UserError(
            f"sparsify's format keeps the k largest latents and nothing else, and {folded.variant} "
            f"{folded.activation.words}: use --format saelens or safetensors"
        )
    if folded.per_row:
        raise UserError(
            "sparsify's format has no layer normalisation, which does not fold into weights: use --format saelens or "
            "safetensors"
        )
    s, d_in = folded.W_enc.shape
    d_out = folded.W_dec.shape[1]
    if d_in != d_out:
        raise UserError(
            f"sparsify's format has one width for input and output, and these have {d_in} and {d_out}: "
            "use --format safetensors"
        )
    tensors = {
        "encoder.weight": folded.W_enc,
        "encoder.bias": folded.bias if folded.transcodes else folded.centred_bias,
        "W_dec": folded.W_dec,
        "b_dec": folded.b_dec,
    }
    if folded.W_skip is not None:
        tensors["W_skip"] = folded.W_skip.T
    config = {
        "d_in": d_in,
        "num_latents": s,
        "expansion_factor": max(1, s // d_in),
        "k": folded.activation.k,
        "activation": "topk",
        "normalize_decoder": not folded.transcodes,
        "multi_topk": False,
        "skip_connection": folded.W_skip is not None,
        "transcode": folded.transcodes,
        "metadata": {"hook_name": folded.hook_points[0], "hook_name_out": folded.hook_points[1], **about},
    }
    return Files(CONFIG, config, WEIGHTS, tensors)


def from_files(read: Read) -> Start:
    """The model that files of sparsify hold.

    Raises:
        UserError: they hold something that there is no autoencoder for here, or are malformed.
    """
    return unfold(folded_in(read))


def folded_in(read: Read) -> Folded:
    """The map that files of sparsify hold.

    Raises:
        UserError: they hold something that there is no autoencoder for here, or are malformed.
    """
    read.choice("activation", {"topk": None}, "topk")
    if read.setting("signed", bool, False):  # of early releases
        raise UserError(f"{read.config_path}: signed is true, and only latents without a sign can be imported")
    d = read.setting("d_in", int)
    s = read.setting("num_latents", int, 0) or d * read.setting("expansion_factor", int)
    W_enc, bias, b_dec = read.tensor("encoder.weight", s, d), read.tensor("encoder.bias", s), read.tensor("b_dec", d)
    transcodes = read.setting("transcode", bool, False)
    return Folded(
        W_enc=W_enc,
        bias=bias if transcodes else bias - W_enc @ b_dec,
        activation=LargestValues(read.setting("k", int)),
        W_dec=read.tensor("W_dec", s, d),
        b_dec=b_dec,
        W_skip=read.tensor("W_skip", d, d).T if read.setting("skip_connection", bool, False) else None,
        per_row=False,
        hook_points=read.hook_points(transcodes),
        variant="this autoencoder",
    )
