"""The folder that `sentence_transformers.SentenceTransformer` loads.

modules.json names three modules, each with its settings in a folder: the transformer at the top, `1_Pooling`, and
`2_Normalize` where the encoder brings its vectors to norm 1. Settings go by the names of release 5, which 6 reads too.
"""

from __future__ import annotations

from pathlib import Path

from backbones import TextEncoder
from exports.tokenizer_files import prompts_of, write_tokenizer
from lightning_modules.functional import Pooling
from run_store import write_json

POOLING_SETTINGS: dict[Pooling, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last_token": "pooling_mode_lasttoken",
}
ALONE = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
queries = model.encode_query(["what is looked for"])
documents = model.encode_document(["what is to be found", "and something else"])
scores = model.similarity(queries, documents)
"""
JOINED = """\
import json

import numpy
from sentence_transformers import SentenceTransformer

shares = json.load(open("{folder}/joined.json"))["shares"]
parts = [SentenceTransformer(f"{folder}/parts/{{i}}") for i in range(len(shares))]

def embed(texts, prompt):  # query or document
    vectors = [part.encode(texts, prompt_name=prompt, normalize_embeddings=True) for part in parts]
    return numpy.concatenate([vector * share**0.5 for vector, share in zip(vectors, shares)], axis=1)
"""


def write(encoder: TextEncoder, folder: Path) -> None:
    """Writes everything but the model card.

    Args:
        encoder: built and trained.
        folder: is there and empty.
    """
    encoder.plain_backbone().save_pretrained(folder)
    write_tokenizer(encoder, folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if encoder.normalize else [])]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds) if index)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    for path in paths[1:]:
        (folder / path).mkdir()
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_length, "do_lower_case": False})
    write_json(folder / "1_Pooling" / "config.json", _pooling(encoder))
    written = {"prompts": prompts_of(encoder), "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", written)


def _pooling(encoder: TextEncoder) -> dict[str, int | bool]:
    # What is not said is taken for the mean, in addition.
    modes = {setting: pooling == encoder.pooling for pooling, setting in POOLING_SETTINGS.items()}
    return {
        "word_embedding_dimension": encoder.width,
        **modes,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "include_prompt": True,
    }
