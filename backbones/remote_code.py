"""Classes from the Python files that some models carry: run only for a model that a person has named for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from backbones.sources import explained
from run_store import UserError

CODE_FILES = ("*.py",)

# What a model calls its classes in config.json: the bare model first, which is the one that is wanted.
_WITH_LANGUAGE_HEAD = "AutoModelForCausalLM"
_MODEL_KEYS = ("AutoModel", "AutoModelForTextEncoding", _WITH_LANGUAGE_HEAD, "AutoModelForMaskedLM")


def refuse_unasked_code(model: str, folder: Path, remote_code_of: str | None) -> None:
    """Raises unless the model either needs no code of its own or is the one whose code was asked for.

    Raises:
        UserError: the name is another model's, the model carries no code, or it needs code that nobody asked for.
    """
    carried = _carried_classes(model, folder)
    files = ", ".join(sorted({f"{reference.rpartition('.')[0]}.py" for reference in carried.values()}))
    if remote_code_of is None:
        if carried and _model_type(model, folder) not in CONFIG_MAPPING:
            raise UserError(
                f"model {model!r} needs Python code of its own ({files}), which would run on this machine: read it, "
                f"then set remote_code_of to {model!r}, or choose a model that transformers knows"
            )
    elif remote_code_of != model:
        raise UserError(
            f"remote_code_of names {remote_code_of!r}, but the model is {model!r}: set it to exactly the model's name "
            "to run the code that comes with it, or to null"
        )
    elif not carried:
        raise UserError(f"model {model!r} carries no code of its own: set remote_code_of to null")


def carries_language_head(model: str, folder: Path) -> bool:
    """Whether the code of a model has a class with a head that predicts the next token."""
    return _WITH_LANGUAGE_HEAD in _carried_classes(model, folder)


def remote_classes(
    model: str, folder: Path, language_head: bool = False
) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    """Runs the code that a model carries, for its configuration and its class.

    Args:
        language_head: Whether the class with a head that predicts the next token is wanted.

    Raises:
        UserError: the code fails, names no model class, or lies in another repository than the model.
    """
    carried = _carried_classes(model, folder)
    if foreign := [reference for reference in carried.values() if "--" in reference]:
        raise UserError(
            f"model {model!r} asks for code from elsewhere ({foreign[0]}): download both into one folder and name that"
        )
    wanted = (_WITH_LANGUAGE_HEAD,) if language_head else _MODEL_KEYS
    key = next((key for key in wanted if key in carried), None)
    if key is None:
        raise UserError(f"the code of model {model!r} names no class for reading text: choose another model")
    with explained(f"code of model {model!r}"):
        family: Any = (
            get_class_from_dynamic_module(carried["AutoConfig"], folder)
            if "AutoConfig" in carried
            else CONFIG_MAPPING[_model_type(model, folder)]
        )
        return family.from_pretrained(folder), get_class_from_dynamic_module(carried[key], folder)


def _carried_classes(model: str, folder: Path) -> dict[str, str]:
    """`auto_map` of the configuration: the library's name of a class → file and class in the folder."""
    with explained(f"model {model!r}"):
        carried = json.loads((folder / "config.json").read_text("utf-8")).get("auto_map") or {}
        # A tokenizer's entry is a list, and is none of a model's business.
        return {key: reference for key, reference in carried.items() if isinstance(reference, str)}


def _model_type(model: str, folder: Path) -> str:
    with explained(f"model {model!r}"):
        return str(json.loads((folder / "config.json").read_text("utf-8")).get("model_type", ""))
