"""Overlays by name on the command line: `--model.autoencoder transcoder` is configs/autoencoder/transcoder.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"


def with_overlays(arguments: Sequence[str], configs: Path = CONFIGS) -> list[str]:
    """The command line, with the name of an overlay replaced by its file wherever a setting has overlays: a setting
    that ends in .autoencoder has those in configs/autoencoder. Case, `_` and `-` do not matter.

    A file that exists stays itself, and so does the exact name of the class that the overlay would choose: that
    switches the class and keeps the settings that both have.
    """
    replaced = list(arguments)
    for place, argument in enumerate(arguments):
        setting, equals, value = argument.partition("=")
        if not setting.startswith("--"):
            continue
        if equals:
            replaced[place] = f"{setting}={_overlay(configs, setting, value)}"
        elif place + 1 < len(arguments):
            replaced[place + 1] = _overlay(configs, setting, arguments[place + 1])
    return replaced


def _overlay(configs: Path, setting: str, name: str) -> str:
    files = {_plain(file.stem): file for file in (configs / setting.rpartition(".")[2]).glob("*.yaml")}
    file = files.get(_plain(name))
    if "." not in setting or file is None or Path(name).exists():
        return name
    # a file without a class is a whole config, such as those of environments
    return name if yaml.safe_load(file.read_text(encoding="utf-8")).get("class_path", name) == name else str(file)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
