"""From contexts to rows of activations: which model, which hook points, in which precision, and which tokens count."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor
from transformers import PreTrainedModel

from backbones.arithmetic import resolve_device, resolve_precision
from backbones.hook_points import HookPoint, is_pattern, read_points, resolve
from backbones.loading import code_sha256, load_backbone, load_skeleton, weights_sha256
from backbones.refusals import refuse_unfit
from backbones.row_extractor import RowExtractor, RowFilters
from backbones.row_filters import RowCounts
from datamodules.text import real_tokens
from run_store import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Extractor(RowExtractor):
    """Reads the activations of a model at its hook points.

    Rows of special tokens are left out, and so are outliers: a few tokens of some models (often the first of a
    context) carry norms a hundred times the others' and would be all that an autoencoder learns. A row counts as one
    when its norm at any hook point exceeds `max_norm_ratio` times the median norm of its own context; the measure is
    taken context by context so that the rows of a store do not depend on how contexts were batched.

    Nothing is loaded before it is needed.

    Args:
        model: A folder, `package:NAME` or a hub id.
        hook_points: Module paths of the model, such as `encoder.layer.2`, or aliases, such as `residual.3`; their
            outputs are captured, or with `:input` behind a path what enters them. `*`, `?` and `[…]` stand for parts of
            a name. docs/hook-points.md has the whole story.
        precision: Arithmetic of the forward; `bfloat16` is autocast. `auto` takes it where the hardware multiplies it
            fast (CUDA, or a CPU with AVX512-BF16 or AMX) and float32 elsewhere, where it would be slower.
        store_dtype: In what the activations are handed on; for an int8 store that is float32.
        max_norm_ratio: The limit for outliers; null keeps every row.
        device: `auto` (the GPU if there is one), `cpu`, `cuda`…
        dtype: Of the weights. Below float32 they take half the memory, and the forward computes in their dtype.
        device_map: How accelerate spreads a model over several devices; null puts it on `device`.
        attention: Which of transformers' implementations computes attention; null leaves the choice to it.
        revision: Branch, tag or commit of a model on the hub.
        remote_code_of: The model's own name, once more, if the Python code that comes with it may run on this machine.
        keep_special_tokens: Whether special tokens give rows.
        keep_first_token: Whether the first token of each context gives a row: true keeps it even if it is special or
            an outlier, false leaves it out, null treats it like any other.
        positions: Places in the context whose tokens give rows; negative ones count from its end, without padding.
            null takes all.
    """

    def __init__(
        self,
        model: str,
        hook_points: list[str],
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        store_dtype: Literal["float32", "bfloat16", "int8"] = "bfloat16",
        max_norm_ratio: PositiveFloat | None = 10.0,
        device: str = "auto",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None,
        attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None,
        revision: str | None = None,
        remote_code_of: str | None = None,
        keep_special_tokens: bool = False,
        keep_first_token: bool | None = None,
        positions: list[int] | None = None,
    ) -> None:
        self.model = model
        self.hook_points = hook_points
        self.precision = precision
        self.store_dtype = store_dtype
        self.max_norm_ratio = max_norm_ratio
        self.wanted_device = device
        self.dtype = dtype
        self.device_map = device_map
        self.attention = attention
        self.revision = revision
        self.remote_code_of = remote_code_of
        self.keep_special_tokens = keep_special_tokens
        self.keep_first_token = keep_first_token
        self.positions = positions
        self.counts = RowCounts()
        self._language_head = False
        self._backbone: PreTrainedModel | None = None
        self._points: dict[str, HookPoint] = {}

    def copied(self, language_head: bool = False) -> Extractor:
        """The same settings with a model of its own.

        Args:
            language_head: Whether that is loaded with the head that predicts the next token. Hook points keep the names
                that they have without it.
        """
        other = copy.copy(self)
        other._language_head, other.counts = language_head, RowCounts()
        other.unload()
        return other

    def load(self) -> PreTrainedModel:
        """The model on its device, loaded at the first call."""
        if self._backbone is None:
            device = self.device
            self._refuse_two_places()
            self._resolved_precision()
            backbone = load_backbone(
                self.model,
                self.revision,
                self.remote_code_of,
                DTYPES[self.dtype],
                self.attention,
                self.device_map,
                self._language_head,
            )
            self._points = self._resolve(backbone)
            self._backbone = backbone if self.device_map else backbone.to(device)  # type: ignore[arg-type]
        return self._backbone

    def unload(self) -> None:
        self._backbone, self._points = None, {}

    def rounding_settings(self) -> set[str]:
        # with `auto`, whatever was best where the store was made is good here
        return {"precision"} if self.precision == "auto" else set()

    def describe(self) -> dict[str, Any]:
        """`precision` is the resolved one; the patterns among `hook_points` are expanded."""
        description = {
            "model": self.model,
            "revision": self.revision,
            "weights_sha256": weights_sha256(self.model, self.revision),
            "hook_points": self.hook_point_names(),
            "dtype": self.dtype,
            "precision": self._resolved_precision(),
            "attention": self.attention,
            "store_dtype": self.store_dtype,
            "keep_special_tokens": self.keep_special_tokens,
            "keep_first_token": self.keep_first_token,
            "positions": self.positions,
            "max_norm_ratio": self.max_norm_ratio,
        }
        if self.remote_code_of is not None:
            description["remote_code_sha256"] = code_sha256(self.model, self.revision)
        return description

    def states(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        inputs = self.inputs(tokens, lengths)
        with self.arithmetic():
            return read_points(self.load(), self.points, inputs)

    @property
    def points(self) -> Mapping[str, HookPoint]:
        """The hook points in the loaded model by name, patterns replaced by the names that they match."""
        self.load()
        return self._points

    def inputs(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """What the model is called with; arguments and errors as of `states`."""
        inputs = {"input_ids": tokens}
        # Without a mask the attention need not read one, and nothing is padded but for contexts of different lengths.
        if lengths is not None and int(lengths.min()) < tokens.shape[1]:
            mask = real_tokens(tokens, lengths)
            # An id of the vocabulary, whatever the padding was.
            inputs = {"input_ids": tokens.where(mask, 0), "attention_mask": mask.long()}
        refuse_unfit(self.load(), inputs["input_ids"])
        return {name: value.to(self.device) for name, value in inputs.items()}

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of a forward, as a context to call the model in."""
        autocast = self.dtype == "float32" and self._resolved_precision() == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=autocast)

    def _resolve(self, backbone: PreTrainedModel) -> dict[str, HookPoint]:
        """The hook points, by the names that they have in the model without its head."""
        if not self._language_head:
            return resolve(backbone, self.hook_points)
        try:
            return resolve(backbone.base_model, self.hook_points)
        except UserError:
            # Code that a model carries may have no class but the one with the head: then names are those in the whole.
            return resolve(backbone, self.hook_points)

    def hook_point_names(self) -> list[str]:
        if not any(map(is_pattern, self.hook_points)):
            return list(self.hook_points)
        model = self._backbone or load_skeleton(self.model, self.revision, self.remote_code_of)
        return list(resolve(model, self.hook_points))

    @property
    def filters(self) -> RowFilters:
        return RowFilters(self.keep_special_tokens, self.keep_first_token, self.positions, self.max_norm_ratio)

    @property
    def device(self) -> torch.device:
        """Where contexts go in; of a model on several devices, where its embeddings are."""
        if self.device_map and self._backbone is not None:
            embeddings: torch.device = self._backbone.get_input_embeddings().weight.device  # type: ignore[assignment]
            # Weights that wait elsewhere for their turn are brought by accelerate, and so are the contexts.
            return torch.device("cpu") if embeddings.type == "meta" else embeddings
        return resolve_device(self.wanted_device)

    def _resolved_precision(self) -> str:
        return resolve_precision(self.precision, self.dtype, self.device)

    def _refuse_two_places(self) -> None:
        if self.device_map is not None and self.wanted_device != "auto":
            raise UserError(
                f"device {self.wanted_device!r} and device_map {self.device_map!r} both place the model: leave one out"
            )
