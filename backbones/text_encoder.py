"""A transformer that makes one vector of each text, to be trained.

Shapes: u texts of a batch, c texts of a chunk, l tokens of the longest of these, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PretrainedConfig, PreTrainedModel

from backbones.adapters import LoRA, freeze_layers, merged
from backbones.arithmetic import resolve_precision
from backbones.attention_arithmetic import WideAttention, around_recomputing
from backbones.attention_direction import attends_forwards_only, set_direction
from backbones.chunks import Chunk, PaddedTexts
from backbones.encoder import Encoder
from backbones.linear_layers import LinearLayers, route_embeddings, route_linear_layers, unroute
from backbones.loading import load_backbone, load_skeleton, weights_sha256
from backbones.refusals import readable_positions
from backbones.sentence_folders import SentenceSettings, read_sentence_settings
from backbones.tokenizers import tokenizer_sha256
from datamodules.triplets.batch import Tokenisation
from lightning_modules.functional import Pooling, pooled
from run_store import UserError

COLUMNS = ("anchor", "positive", "negative")


class TextEncoder(Encoder):
    """Any transformer with a pooling behind it.

    Args:
        model: A folder, `package:NAME` or a hub id.
        revision: Branch, tag or commit of a model on the hub.
        pooling: How the hidden states of a text become one vector; null reads it from what sentence-transformers has
            saved with the model, and takes the mean where it has saved nothing.
        normalize: Whether vectors are brought to norm 1; null reads that, too, and is true where nothing is said.
        max_length: Tokens of a text, longer ones are cut; null reads it, and else takes all that the model can read.
        prompts: What is put in front of the texts of a column (`anchor`, `positive`, `negative`).
        dtype: Of the weights. What is trained keeps float32: bfloat16 rounds most steps away.
        precision: Arithmetic of the forward; `bfloat16` is autocast. `auto` takes it where the hardware multiplies it
            fast and float32 elsewhere. It holds whatever the Trainer's precision is.
        attention: Which of transformers' implementations computes attention; null leaves the choice to it.
        is_causal: Whether tokens see earlier ones alone; null leaves the model as it is. See `causal`.
        lora: Adapters that are trained in place of the model's own weights.
        frozen_layers: So many of the first layers, with the embeddings, are not trained.
        gradient_checkpointing: Whether layers are computed again in the backward pass, for less memory.
        dropout: Whether the model's own dropout is on in training. Without it NDCG was the same and training faster.
        linear_layers: What multiplies float32 matrices on a CPU: `torch` (MKL), `onednn`, or, with `auto`, oneDNN
            where this torch has it.
        tokens_at_once: Padded tokens of a chunk. Small chunks stay in a CPU's caches; a GPU wants large ones.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        max_length: PositiveInt | None = None,
        prompts: dict[str, str] | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None,
        is_causal: bool | None = None,
        lora: LoRA | None = None,
        frozen_layers: NonNegativeInt = 0,
        gradient_checkpointing: bool = False,
        dropout: bool = False,
        linear_layers: LinearLayers = "auto",
        tokens_at_once: PositiveInt = 2048,
    ) -> None:
        super().__init__()
        self.model = model
        self.revision = revision
        self.wanted_pooling = pooling
        self.wanted_normalize = normalize
        self.wanted_max_length = max_length
        self.prompts = prompts or {}
        self.dtype = dtype
        self.precision = precision
        self.attention = attention
        self.is_causal = is_causal
        self.lora = lora
        self.frozen_layers = frozen_layers
        self.gradient_checkpointing = gradient_checkpointing
        self.dropout = dropout
        self.linear_layers = linear_layers
        self.tokens_at_once = tokens_at_once
        self.backbone: PreTrainedModel | None = None

    def check_settings(self) -> None:
        if unknown := sorted(set(self.prompts) - set(COLUMNS)):
            raise UserError(f"prompts has no column {unknown[0]!r}: its columns are {', '.join(COLUMNS)}")
        if self.lora is not None:
            self.lora.check_settings()
            if self.frozen_layers:
                raise UserError("frozen_layers has no meaning beside lora, which freezes the model: set it to 0")
        elif self.dtype == "bfloat16":
            raise UserError(
                "dtype bfloat16 would round the steps of training away: set it to float32 with precision bfloat16, or "
                "set lora, whose weights are float32"
            )
        positions = readable_positions(self._skeleton)
        if positions is not None and self.max_length > positions:
            raise UserError(f"max_length {self.max_length} exceeds the {positions} positions of the model: lower it")

    def build(self) -> None:
        if self.backbone is not None:
            return
        self.check_settings()
        dtype = torch.bfloat16 if self.dtype == "bfloat16" else torch.float32
        backbone = load_backbone(self.model, self.revision, None, dtype, self.attention, adjust=self._adjust)
        set_direction(backbone, self.is_causal)
        causal = attends_forwards_only(backbone, self.model)
        if self.is_causal not in (None, causal):
            raise UserError(
                f"is_causal {str(self.is_causal).lower()} cannot be had from model {self.model!r}: set it to null"
            )
        self._causal = causal
        self._make_trainable(backbone)
        route_linear_layers(backbone, self.linear_layers)
        route_embeddings(backbone)
        if self.gradient_checkpointing:
            # Its name in later versions of transformers comes first.
            names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
            enable = next(getattr(backbone, name) for name in names if hasattr(backbone, name))
            enable({"use_reentrant": False, "context_fn": around_recomputing})
        self.backbone = backbone.train(self.training)

    @property
    def causal(self) -> bool:
        """Whether tokens see earlier ones alone, as seen in what the model does; known from `build` on."""
        self._built()
        return self._causal

    @property
    def pooling(self) -> Pooling:
        return self.wanted_pooling or self._saved.pooling or "mean"

    @property
    def says_pooling(self) -> bool:
        """Whether the settings or the model itself say how it pools; the mean is a guess where neither does."""
        return (self.wanted_pooling or self._saved.pooling) is not None

    @property
    def normalize(self) -> bool:
        if self.wanted_normalize is not None:
            return self.wanted_normalize
        return True if self._saved.normalize is None else self._saved.normalize

    @property
    def normalizes(self) -> bool:
        return self.normalize

    @property
    def max_length(self) -> int:
        if self.wanted_max_length is not None:
            return int(self.wanted_max_length)
        known = (self._saved.max_length, readable_positions(self._skeleton))
        limits: list[int] = [limit for limit in known if limit is not None]
        if not limits:
            raise UserError(f"model {self.model!r} does not say how long its texts may be: set max_length")
        return min(limits)

    @property
    def width(self) -> int:
        width: int = self._skeleton.config.get_text_config().hidden_size
        return width

    @property
    def budgets(self) -> list[int]:
        return [self.tokens_at_once]

    def unbuilt(self) -> TextEncoder:
        """A copy without weights, of which `build` loads those that training begins with."""
        held, self.backbone = self.backbone, None
        try:
            return copy.deepcopy(self)
        finally:
            self.backbone = held

    def tokenisations(self) -> list[Tokenisation]:
        return [Tokenisation(self.model, self.revision, self.max_length, self.prompts)]

    def encode_chunk(self, chunk: Chunk) -> Tensor:
        return self.encode_padded(chunk.texts[0])

    def encode_padded(self, texts: PaddedTexts) -> Tensor:
        """Embeddings [c, d] of texts in this encoder's own tokenisation, float32."""
        with self.arithmetic(texts.tokens.device):
            hidden = self._built()(**self.inputs(texts)).last_hidden_state
        vectors = pooled(hidden, texts.real, self.pooling)
        return normalize(vectors, dim=1) if self.normalize else vectors

    def inputs(self, texts: PaddedTexts) -> dict[str, Tensor]:
        """What the backbone is called with."""
        # Attention takes its fast path where it is given no mask.
        mask = {"attention_mask": texts.real.long()} if texts.is_padded else {}
        return {"input_ids": texts.tokens, **mask}

    @contextmanager
    def arithmetic(self, device: torch.device) -> Iterator[None]:
        """The precision of a forward, to call the backbone in."""
        bfloat16 = self.dtype == "float32" and resolve_precision(self.precision, self.dtype, device) == "bfloat16"
        wide = WideAttention() if bfloat16 and device.type == "cpu" else nullcontext()
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16), wide:
            yield

    def plain_backbone(self) -> PreTrainedModel:
        """A copy of the model as transformers would save it, in float32: adapters are merged into the weights."""
        plain = merged(self._built())
        unroute(plain)
        return plain

    def lineage(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "revision": self.revision,
            "weights_sha256": weights_sha256(self.model, self.revision),
            "tokenizer_sha256": tokenizer_sha256(self.model, self.revision),
            "pooling": self.pooling,
            "normalize": self.normalize,
            "max_length": self.max_length,
            "prompts": dict(self.prompts),
            "is_causal": self.is_causal,
            "lora": None if self.lora is None else self.lora.describe(),
        }

    def _adjust(self, config: PretrainedConfig) -> None:
        """Changes the model's configuration as the settings ask."""
        text = config.get_text_config()
        if not self.dropout:
            for name, value in vars(text).items():
                # Families call it attention_dropout, hidden_dropout_prob, resid_pdrop, dropout_rate…
                if "drop" in name and isinstance(value, int | float) and not isinstance(value, bool):
                    setattr(text, name, 0.0)
        if self.is_causal is not None:
            text.is_causal = self.is_causal

    def _make_trainable(self, backbone: PreTrainedModel) -> None:
        if self.lora is not None:
            self.lora.put_into(backbone)
            return
        backbone.requires_grad_(True)
        if self.frozen_layers:
            freeze_layers(backbone, self.frozen_layers)
        # A pooler of the model's own is read by nothing here and would wait for a gradient in vain.
        for name, parameter in backbone.named_parameters():
            if name.startswith("pooler."):
                parameter.requires_grad_(False)

    def _built(self) -> PreTrainedModel:
        if self.backbone is None:
            raise RuntimeError("the encoder has no weights before build()")
        return self.backbone

    @cached_property
    def _saved(self) -> SentenceSettings:
        return read_sentence_settings(self.model, self.revision)

    @cached_property
    def _skeleton(self) -> PreTrainedModel:
        return load_skeleton(self.model, self.revision)
