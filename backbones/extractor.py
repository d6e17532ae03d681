"""From contexts to rows of activations: which model, which hook points, in which precision, and which tokens count."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor
from transformers import PreTrainedModel

from backbones.hook_points import capture, resolve
from backbones.loading import load_backbone, weights_sha256
from datamodules.text import TokenBatch
from run_store import UserError

STORE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CapturedRows(NamedTuple):
    """Activations of the tokens that count, on the CPU, in the order of the contexts and of the tokens in them."""

    activations: dict[str, Tensor]
    """One tensor [rows, d] a hook point, the same rows in each, in the dtype of the store."""
    tokens: Tensor
    """Token ids, int64 [rows]."""
    documents: Tensor
    """Document numbers, int64 [rows]."""
    positions: Tensor
    """Index of each token in its own document, int64 [rows]."""


class Extractor:
    """Reads the activations of a model at its hook points.

    Rows of special tokens are left out, and so are outliers: a few tokens of some models (often the first of a
    context) carry norms a hundred times the others' and would be all that an autoencoder learns. A row counts as one
    when its norm at any hook point exceeds `max_norm_ratio` times the median norm of its own context; the measure is
    taken context by context so that the rows of a store do not depend on how contexts were batched.

    Nothing is loaded before it is needed.

    Args:
        model: A folder, `package:NAME` or a hub id.
        hook_points: Module paths of the model, such as `encoder.layer.2`; their outputs are captured.
        precision: Arithmetic of the forward; `bfloat16` is autocast. `auto` takes it where the hardware multiplies it
            fast (CUDA, or a CPU with AVX512-BF16 or AMX) and float32 elsewhere, where it would be slower.
        store_dtype: In what the activations are handed on.
        max_norm_ratio: The limit for outliers; null keeps every row.
        device: `auto` (the GPU if there is one), `cpu`, `cuda`…
    """

    def __init__(
        self,
        model: str,
        hook_points: list[str],
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        store_dtype: Literal["float32", "bfloat16"] = "bfloat16",
        max_norm_ratio: PositiveFloat | None = 10.0,
        device: str = "auto",
    ) -> None:
        self.model = model
        self.hook_points = hook_points
        self.precision = precision
        self.store_dtype = store_dtype
        self.max_norm_ratio = max_norm_ratio
        self.device = device
        self._backbone: PreTrainedModel | None = None

    def load(self) -> PreTrainedModel:
        """The model on its device, loaded at the first call.

        Raises:
            UserError: it cannot be loaded, lacks a hook point, or the device is not there.
        """
        if self._backbone is None:
            backbone = load_backbone(self.model)
            resolve(backbone, self.hook_points)
            self._backbone = backbone.to(self._resolved_device())  # type: ignore[arg-type]
        return self._backbone

    def unload(self) -> None:
        """Gives the model's memory back."""
        self._backbone = None

    def shapes(self) -> dict[str, int]:
        """Size d of the vectors at each hook point, found by a forward of two tokens."""
        states = self._forward(torch.zeros(1, 2, dtype=torch.int64))
        return {name: state.shape[-1] for name, state in states.items()}

    def describe(self) -> dict[str, Any]:
        """What decides the values of the rows, as plain JSON values; `precision` is the resolved one.

        Raises:
            UserError: the model's weights cannot be found.
        """
        return {
            "model": self.model,
            "weights_sha256": weights_sha256(self.model),
            "hook_points": list(self.hook_points),
            "precision": self._resolved_precision(),
            "store_dtype": self.store_dtype,
            "special_tokens": "left out",
            "max_norm_ratio": self.max_norm_ratio,
        }

    @torch.inference_mode()
    def __call__(self, batch: TokenBatch) -> CapturedRows:
        """Runs the contexts through the model and keeps the rows that count.

        Raises:
            UserError: the contexts do not fit the model, or an activation is NaN or infinite.
        """
        states = self._forward(batch.tokens)
        positions = batch.positions.to(self._resolved_device())
        keep = positions >= 0
        content = keep.clone()
        for name, state in states.items():
            norms = torch.linalg.vector_norm(state, dim=-1, dtype=torch.float32)
            _refuse_non_finite(name, norms, content, batch)
            if self.max_norm_ratio is not None:
                typical = norms.where(content, torch.nan).nanmedian(dim=1, keepdim=True).values
                keep &= norms <= self.max_norm_ratio * typical
        kept = keep.flatten().nonzero().squeeze(1)
        dtype = STORE_DTYPES[self.store_dtype]
        activations = {
            name: state.flatten(0, 1).index_select(0, kept).to(device="cpu", dtype=dtype)
            for name, state in states.items()
        }
        kept = kept.to(batch.tokens.device)
        tokens, documents, positions = (column.flatten().index_select(0, kept).cpu() for column in batch)
        return CapturedRows(activations, tokens, documents, positions)

    def _forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Hidden states [batch, length, d] at each hook point, on the model's device."""
        backbone = self.load()
        _refuse_unfit(backbone, tokens)
        device = self._resolved_device()
        bfloat16 = self._resolved_precision() == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            # No mask: nothing is padded, and without one the attention need not read one.
            return capture(backbone, self.hook_points, input_ids=tokens.to(device))

    def _resolved_device(self) -> torch.device:
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {self.device!r} cannot be used on this machine: set it to auto or cpu") from error

    def _resolved_precision(self) -> str:
        if self.precision != "auto":
            return self.precision
        on_gpu = self._resolved_device().type == "cuda"
        fast = torch.cuda.is_bf16_supported() if on_gpu else _cpu_multiplies_bfloat16()
        return "bfloat16" if fast else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it."""
    # Private functions, because the public one is not in every version of torch that is allowed here.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, lambda: False)() for question in questions)


def _refuse_unfit(backbone: PreTrainedModel, tokens: Tensor) -> None:
    """Raises where the model would fail with an index out of range."""
    positions = getattr(backbone.config, "max_position_embeddings", None)
    if positions is not None:
        positions -= _reserved_positions(backbone)
        if tokens.shape[1] > positions:
            raise UserError(
                f"context_length {tokens.shape[1]} exceeds the {positions} positions of the model: lower it"
            )
    largest, vocabulary = int(tokens.max()), int(backbone.config.get_text_config().vocab_size)
    if largest >= vocabulary:
        raise UserError(f"token id {largest} is beyond the model's {vocabulary}: set `tokenizer` to the model's own")


def _reserved_positions(backbone: PreTrainedModel) -> int:
    """How many of its positions a model keeps for padding; RoBERTa and its kin count from there."""
    tables = (module for name, module in backbone.named_modules() if name.endswith("position_embeddings"))
    paddings = (getattr(table, "padding_idx", None) for table in tables)
    return max((padding + 1 for padding in paddings if padding is not None), default=0)


def _refuse_non_finite(name: str, norms: Tensor, content: Tensor, batch: TokenBatch) -> None:
    """Raises where a row's norm is NaN or infinite, as it is when any of its values is."""
    broken = (~norms.isfinite() & content).nonzero()
    if len(broken):
        context, index = broken[0].tolist()
        raise UserError(
            f"activations at hook point {name!r} are NaN or infinite (document {int(batch.documents[context, index])}, "
            f"position {int(batch.positions[context, index])}): check the model's weights or set `precision` to float32"
        )
