from backbones.captured_rows import CapturedRows
from backbones.extractor import Extractor
from backbones.hook_points import capture, resolve
from backbones.joint_extractor import JointExtractor
from backbones.loading import load_backbone, weights_sha256
from backbones.row_extractor import RowExtractor
from backbones.row_filters import RowCounts
from backbones.tokenizers import load_tokenizer, tokenizer_sha256

__all__ = [
    "CapturedRows",
    "Extractor",
    "JointExtractor",
    "RowCounts",
    "RowExtractor",
    "capture",
    "load_backbone",
    "load_tokenizer",
    "resolve",
    "tokenizer_sha256",
    "weights_sha256",
]
