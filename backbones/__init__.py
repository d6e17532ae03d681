from backbones.adapters import LoRA
from backbones.captured_rows import CapturedRows
from backbones.chunks import Chunk, PaddedTexts
from backbones.concatenated_encoder import ConcatenatedEncoder
from backbones.continuation import GreedyContinuation
from backbones.encoder import Encoder
from backbones.extractor import Extractor
from backbones.hook_points import capture, resolve
from backbones.joint_extractor import JointExtractor
from backbones.loading import has_language_head, load_backbone, weights_sha256
from backbones.row_extractor import RowExtractor
from backbones.row_filters import RowCounts
from backbones.splicing import CleanPass, SplicedModel
from backbones.text_encoder import TextEncoder
from backbones.tokenizers import load_tokenizer, tokenizer_sha256
from backbones.unembedding import Unembedding

__all__ = [
    "CapturedRows",
    "Chunk",
    "CleanPass",
    "ConcatenatedEncoder",
    "Encoder",
    "Extractor",
    "GreedyContinuation",
    "JointExtractor",
    "LoRA",
    "PaddedTexts",
    "RowCounts",
    "RowExtractor",
    "SplicedModel",
    "TextEncoder",
    "Unembedding",
    "capture",
    "has_language_head",
    "load_backbone",
    "load_tokenizer",
    "resolve",
    "tokenizer_sha256",
    "weights_sha256",
]
