from backbones.extractor import CapturedRows, Extractor
from backbones.hook_points import capture, resolve
from backbones.loading import load_backbone, load_tokenizer, tokenizer_sha256, weights_sha256

__all__ = [
    "CapturedRows",
    "Extractor",
    "capture",
    "load_backbone",
    "load_tokenizer",
    "resolve",
    "tokenizer_sha256",
    "weights_sha256",
]
