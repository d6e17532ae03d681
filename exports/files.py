"""The two files of an exported autoencoder, a JSON of settings and safetensors: written, and read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from run_store import UserError, write_json

T = TypeVar("T")
_ABSENT = object()
MOST_SETTINGS_BYTES = 1 << 20


class Files(NamedTuple):
    """Names and contents of the two."""

    config_name: str
    config: dict[str, Any]
    weights_name: str
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Into a folder that is there; float64 becomes float32."""
        write_json(folder / self.config_name, self.config)
        single = {name: value.float() if value.is_floating_point() else value for name, value in self.tensors.items()}
        # copies, since tensors of one memory cannot be saved
        save_file({name: value.clone().contiguous() for name, value in single.items()}, folder / self.weights_name)


@dataclass(frozen=True)
class Read:
    """Settings and tensors of a folder from anywhere. Whatever is asked for is checked."""

    folder: Path
    config_name: str
    config: Mapping[str, Any]
    weights_name: str
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, folder: Path, config_name: str, weights_name: str) -> Read:
        """Raises:
        UserError: one of the two is missing or malformed.
        """
        return cls(folder, config_name, _settings(folder / config_name), weights_name, _tensors(folder / weights_name))

    @property
    def config_path(self) -> Path:
        return self.folder / self.config_name

    def setting(self, name: str, kind: type[T], default: object = _ABSENT) -> T:
        """A setting of a kind; a default makes up for one that is missing or null.

        Raises:
            UserError: it is missing or of another kind.
        """
        value = self.config.get(name)
        if value is None and default is not _ABSENT:
            return default  # type: ignore[return-value]
        # True is an int, but no width
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise UserError(f"{self.config_path}: {name} must be of type {kind.__name__}, not {value!r}")
        return value

    def choice(self, name: str, choices: Mapping[str, T], default: str) -> T:
        """What a setting stands for among those that are known.

        Raises:
            UserError: it is none of them.
        """
        value = self.setting(name, str, default)
        if value not in choices:
            raise UserError(
                f"{self.config_path}: {name} is {value!r}, and only {' and '.join(choices)} can be imported"
            )
        return choices[value]

    def tensor(self, name: str, *shape: int) -> Tensor:
        """A tensor of a shape, in float64.

        Raises:
            UserError: it is missing, of another shape, or not finite.
        """
        path = self.folder / self.weights_name
        if name not in self.tensors:
            raise UserError(f"{path} has no tensor {name}: it has {', '.join(sorted(self.tensors)) or 'none'}")
        value = self.tensors[name]
        if tuple(value.shape) != shape:
            raise UserError(
                f"{path}: {name} is {list(value.shape)}, and {self.config_name} makes it {list(shape)}: "
                "the two files do not belong together"
            )
        if not value.isfinite().all():
            raise UserError(f"{path}: {name} has values that are not finite")
        return value.double()

    def hook_points(self, transcodes: bool) -> tuple[str, str]:
        """Names of what is read and what is reconstructed, as far as SAELens' metadata tells."""
        metadata = self.config.get("metadata")
        known: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
        read = str(known.get("hook_name") or "input")
        return read, str(known.get("hook_name_out") or f"{read}.output") if transcodes else read


def _settings(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_SETTINGS_BYTES:
            raise UserError(f"{path} has more than {MOST_SETTINGS_BYTES:,} bytes: these are no settings")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name the folder of an autoencoder") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings: download it again")
    return content


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is missing or no safetensors file: download it again") from error
