"""An encoder as one ONNX graph, from token ids to finished embeddings.

Shapes: c texts, l tokens of the longest, d width. Inputs are input_ids and attention_mask, int64 [c, l], padded behind;
the output is sentence_embedding, float32 [c, d]. Both c and l are free.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize
from transformers import PreTrainedModel

from backbones import TextEncoder
from datamodules.triplets import TokenisedTexts
from exports.tokenizer_files import prompts_of, tokeniser_of, write_tokenizer
from lightning_modules.functional import Pooling, pooled
from run_store import UserError, write_json

NEEDED = ("onnx", "onnxscript", "onnxruntime")
MODEL = "model.onnx"
OUTPUT = "sentence_embedding"
SETTINGS = "embedding.json"
MOST_BYTES_OF_ONE_FILE = 1_500_000_000
"""A graph is a protobuf, which ends at 2 GiB; weights beyond this go to a file beside it."""
MOST_DISTANCE = 1e-3
"""1 − cosine between what onnxruntime computes and the encoder itself. Rounding alone leaves some 1e-6 in float32."""
CHECKED = (
    "word",
    "two words, or three",
    "a text that is longer than the others of its batch. " * 8,
    "Ünïcode, 数字 and 😀",
)

ALONE = """\
import json

import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
session = onnxruntime.InferenceSession("{folder}/model.onnx")
prompts = json.load(open("{folder}/embedding.json"))["prompts"]

def embed(texts, prompt):  # query or document
    texts = [prompts[prompt] + text for text in texts]
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    return session.run(None, {{name: tokens[name] for name in ("input_ids", "attention_mask")}})[0]
"""
JOINED = """\
import json

import numpy
import onnxruntime
from transformers import AutoTokenizer

shares = json.load(open("{folder}/joined.json"))["shares"]
folders = [f"{folder}/parts/{{i}}" for i in range(len(shares))]
tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
sessions = [onnxruntime.InferenceSession(f"{{folder}}/model.onnx") for folder in folders]
prompts = [json.load(open(f"{{folder}}/embedding.json"))["prompts"] for folder in folders]

def embed(texts, prompt):  # query or document
    parts = []
    for tokenizer, session, known, share in zip(tokenizers, sessions, prompts, shares):
        tokens = tokenizer([known[prompt] + text for text in texts], padding=True, truncation=True, return_tensors="np")
        (part,) = session.run(None, {{name: tokens[name] for name in ("input_ids", "attention_mask")}})
        parts.append(part / numpy.linalg.norm(part, axis=1, keepdims=True) * share**0.5)
    return numpy.concatenate(parts, axis=1)
"""


class Embedder(nn.Module):
    """From token ids and their mask to embeddings, as one module.

    Args:
        backbone: without adapters.
        pooling: of its hidden states.
        normalizes: whether embeddings have norm 1.
    """

    def __init__(self, backbone: PreTrainedModel, pooling: Pooling, normalizes: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.normalizes = normalizes

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = pooled(hidden, attention_mask.bool(), self.pooling)
        return normalize(vectors, dim=1) if self.normalizes else vectors


def write(encoder: TextEncoder, folder: Path) -> None:
    """Writes everything but the model card, and measures what onnxruntime makes of it.

    Args:
        encoder: built and trained.
        folder: is there and empty.

    Raises:
        UserError: a package is missing, the model cannot be written as a graph, or the graph computes something else.
    """
    refuse_missing_packages()
    backbone = encoder.plain_backbone().cpu()
    backbone.train(False)
    # Written out, attention is made of operations that every release of onnxruntime has.
    backbone.set_attn_implementation("eager")
    embedder = Embedder(backbone, encoder.pooling, encoder.normalize)
    _write_graph(embedder, folder / MODEL, encoder)
    write_tokenizer(encoder, folder)
    about = {"prompts": prompts_of(encoder), "max_length": encoder.max_length, "width": encoder.width}
    distance = largest_distance(encoder, folder)
    if not distance <= MOST_DISTANCE:
        raise UserError(
            f"onnxruntime computes something else than model {encoder.model!r} (1 - cosine up to {distance:.2g}): "
            "export it by --format sentence-transformers"
        )
    write_json(folder / SETTINGS, {**about, "largest_distance": distance})


def refuse_missing_packages() -> None:
    """Raises:
    UserError: what writes or runs ONNX is not installed.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UserError(f'the format onnx needs the package {missing[0]}: run pip install -e ".[onnx]"')


@torch.no_grad()
def largest_distance(encoder: TextEncoder, folder: Path) -> float:
    """The largest 1 − cosine between embeddings by onnxruntime and by the encoder, over a few texts of different
    lengths, together and each alone.

    Args:
        encoder: built.
        folder: has graph and tokenizer.

    Raises:
        UserError: onnxruntime cannot run the graph.
    """
    expected = _by_the_encoder(encoder, CHECKED)
    try:
        together, *alone = _by_onnxruntime(folder, [CHECKED, *((text,) for text in CHECKED)])
    except Exception as error:  # it has a class for each of its error codes
        raise _refusal(encoder, error) from error
    distances = [1 - cosine_similarity(found, expected, dim=1) for found in (together, torch.cat(alone))]
    return float(torch.cat(distances).max().clamp(min=0))


def _by_onnxruntime(folder: Path, batches: Sequence[Sequence[str]]) -> list[Tensor]:
    """[c, d] of each batch of c texts, in float64."""
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    found = []
    for texts in batches:
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="np")
        (rows,) = session.run(None, {name: tokens[name] for name in ("input_ids", "attention_mask")})
        found.append(torch.from_numpy(rows).double())
    return found


def _by_the_encoder(encoder: TextEncoder, texts: tuple[str, ...]) -> Tensor:
    """[c, d], in float64, in evaluation and without autocast."""
    exact = copy.copy(encoder)  # shares all modules
    exact.precision = "float32"
    was_training = encoder.training
    device = next(encoder.parameters()).device
    pieces = [torch.from_numpy(text.ids) for text in tokeniser_of(encoder)(texts)]
    lengths = torch.tensor([len(piece) for piece in pieces])
    encoder.eval()
    try:
        return exact.encode([TokenisedTexts(torch.cat(pieces).to(device), lengths.to(device))]).double().cpu()
    finally:
        encoder.train(was_training)


def _write_graph(embedder: Embedder, path: Path, encoder: TextEncoder) -> None:
    length = min(8, encoder.max_length)
    example = (torch.ones(2, length, dtype=torch.int64), torch.ones(2, length, dtype=torch.int64))
    example[1][1, length // 2 :] = 0
    free = {0: torch.export.Dim("texts"), 1: torch.export.Dim("length", max=encoder.max_length)}
    weights = sum(parameter.nbytes for parameter in embedder.parameters())
    try:
        with _quiet():
            torch.onnx.export(
                embedder,
                example,
                path,
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=[OUTPUT],
                dynamic_shapes=(free, free),
                external_data=weights > MOST_BYTES_OF_ONE_FILE,
            )
    except Exception as error:
        raise _refusal(encoder, error) from error


def _refusal(encoder: TextEncoder, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"model {encoder.model!r} cannot be written as ONNX ({reason}): export it by --format sentence-transformers"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress and its talk of its own insides off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
