"""The identity of a run: what it trains (`Spec`) and how it is executed (`Execution`), each as a sha256.

A fingerprint is taken of the resolved config, so that it does not matter which files and options said a thing. What
is printed, logged, saved or watched is no part of it; neither is the place of a file whose content is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Set
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import singledispatch
from pathlib import PurePath
from typing import Any

# The Trainer's settings that decide which updates are made, with the values that null stands for.
OPTIMISATION_DEFAULTS: dict[str, Any] = {
    "max_epochs": None,
    "min_epochs": None,
    "max_steps": -1,
    "min_steps": None,
    "max_time": None,
    "limit_train_batches": 1.0,
    "overfit_batches": 0.0,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": "norm",
    "fast_dev_run": False,
    "sync_batchnorm": False,
    "reload_dataloaders_every_n_epochs": 0,
}
# They decide nothing, unless a callback acts upon what validation measures.
VALIDATION_DEFAULTS: dict[str, Any] = {
    "limit_val_batches": 1.0,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
}
# Callbacks that change the weights or end the training; all others only watch. Ours come first.
TRAINING_CALLBACKS = frozenset(
    {
        "DeadNeuronResampling",
        "LatentGuide",
        "BackboneFinetuning",
        "BatchSizeFinder",
        "EMAWeightAveraging",
        "EarlyStopping",
        "GradientAccumulationScheduler",
        "LearningRateFinder",
        "ModelPruning",
        "StochasticWeightAveraging",
        "WeightAveraging",
    }
)
# Those of them that go by the step alone, so that how often is validated changes nothing.
BLIND_TO_VALIDATION = frozenset({"DeadNeuronResampling", "LatentGuide", "GradientAccumulationScheduler"})
DETERMINISM_DEFAULTS = {"deterministic": False, "benchmark": False}
PARALLELISM_DEFAULTS = {"accelerator": "auto", "strategy": "auto", "devices": "auto", "num_nodes": 1}
# Other spellings that the Trainer takes.
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


@singledispatch
def canonical(value: Any) -> str:
    """One text for each value, whatever the order of its mappings: JSON with sorted keys, in ASCII.

    1, 1.0, true and "1" all differ. A tuple is a list and a path is its text with forward slashes, since a config file
    knows neither. In a mapping null is as good as absent: it means the default. Keys that are no strings keep their
    kind ({1: 2} is not {"1": 2}), which is the one thing that JSON could not hold.

    Raises:
        TypeError: the value holds something that a config file could not.
    """
    raise TypeError(f"a fingerprint is of plain values, and {value!r} is a {type(value).__qualname__}")


@canonical.register(type(None))
@canonical.register(bool)
@canonical.register(int)
@canonical.register(float)
@canonical.register(str)
def _(value: Any) -> str:
    return json.dumps(value)


@canonical.register(Enum)
def _(value: Enum) -> str:
    return canonical(value.name)


@canonical.register(os.PathLike)
def _(value: os.PathLike[str]) -> str:
    return canonical(PurePath(value).as_posix())


@canonical.register(list)
@canonical.register(tuple)
def _(value: Any) -> str:
    return f"[{','.join(map(canonical, value))}]"


@canonical.register(Set)
def _(value: Set[Any]) -> str:
    return f"[{','.join(sorted(map(canonical, value)))}]"


@canonical.register(Mapping)
def _(value: Mapping[Any, Any]) -> str:
    entries = (f"{canonical(key)}:{canonical(entry)}" for key, entry in value.items() if entry is not None)
    return f"{{{','.join(sorted(entries))}}}"


def fingerprint(value: Any) -> str:
    """Hexadecimal sha256 of a value's canonical text.

    Raises:
        TypeError: the value holds something that a config file could not.
    """
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def with_overrides(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with what the overrides say otherwise, mapping by mapping; a null says nothing."""
    merged = dict(defaults)
    for name, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping):
            merged[name] = with_overrides(merged[name], value)
        elif value is not None:
            merged[name] = value
    return merged


@dataclass(frozen=True)
class Spec:
    """What is trained. Two runs of one spec differ by no more than rounding.

    Attributes:
        model: class_path and init_args, the optimiser and the schedule among them.
        data: likewise; files and folders stand there by the hash of their content.
        optimisation: the Trainer's settings that decide which updates are made.
        seed: of everything.
        initial_weights: sha256 of the weights that training starts from; None for freshly drawn ones.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optimisation: Mapping[str, Any]
    seed: Any
    initial_weights: str | None = None

    @property
    def fingerprint(self) -> str:
        return fingerprint(asdict(self))


@dataclass(frozen=True)
class IdentityFlags:
    """Which parts of an execution make another run of it.

    Args:
        code: The commit and the changes since.
        precision: The Trainer's precision.
        determinism: Deterministic algorithms, and benchmarking for the fastest ones.
        parallelism: The accelerator, the strategy and the number of devices and nodes.
    """

    code: bool = True
    precision: bool = True
    determinism: bool = True
    parallelism: bool = True


@dataclass(frozen=True)
class Execution:
    """How a spec is run. Two runs of one spec and one execution have the same bits.

    Attributes:
        code: what `CodeState.identity()` says.
        precision: in the Trainer's full spelling, as "32-true".
        determinism: deterministic, benchmark.
        parallelism: accelerator, strategy, devices (a number or "auto"), num_nodes.
        flags: the parts that count.
    """

    code: Mapping[str, Any]
    precision: str
    determinism: Mapping[str, Any]
    parallelism: Mapping[str, Any]
    flags: IdentityFlags = IdentityFlags()

    @property
    def fingerprint(self) -> str:
        # The flags are hashed too: leaving a part out is another identity than having nothing to say there.
        counted = {
            part.name: getattr(self, part.name) for part in fields(IdentityFlags) if getattr(self.flags, part.name)
        }
        return fingerprint({"flags": asdict(self.flags), **counted})


def spec_of(
    config: Mapping[str, Any],
    contents: Mapping[str, str | None] | None = None,
    initial_weights: str | None = None,
    training_callbacks: Collection[str] = TRAINING_CALLBACKS,
) -> Spec:
    """The spec of a resolved config.

    Args:
        config: plain values under seed_everything, model, data and trainer, as `--print_config` shows them.
        contents: by dotted name in `config`, the hash that stands for what a path leads to, or None for a setting that
            does not touch the result ({"data.init_args.store": "<sha256>", "data.init_args.verify": None}).
        initial_weights: sha256 of the weights that training starts from.
        training_callbacks: names of the callback classes that act upon the training, and so belong to it.

    Raises:
        KeyError: `contents` names a setting that the config does not have.
    """
    for name, content in (contents or {}).items():
        config = _replaced(config, name.split("."), None if content is None else {"sha256": content})
    trainer = config.get("trainer") or {}
    return Spec(
        config.get("model") or {},
        config.get("data") or {},
        _optimisation(trainer, training_callbacks),
        config.get("seed_everything"),
        initial_weights,
    )


def execution_of(
    config: Mapping[str, Any], code: Mapping[str, Any], flags: IdentityFlags = IdentityFlags()
) -> Execution:
    """The execution of a resolved config by the code that `CodeState.identity()` describes."""
    trainer = config.get("trainer") or {}
    precision = str(trainer.get("precision") or "32-true")
    parallelism = _chosen(trainer, PARALLELISM_DEFAULTS)
    return Execution(
        code,
        _PRECISIONS.get(precision, precision),
        _chosen(trainer, DETERMINISM_DEFAULTS),
        {**parallelism, "devices": _number_of_devices(parallelism["devices"])},
        flags,
    )


def _optimisation(trainer: Mapping[str, Any], training_callbacks: Collection[str]) -> dict[str, Any]:
    settings = _chosen(trainer, OPTIMISATION_DEFAULTS)
    callbacks = trainer.get("callbacks") or []
    callbacks = [callbacks] if isinstance(callbacks, Mapping) else callbacks
    acting = [entry for entry in callbacks if _class_name(entry) in training_callbacks]
    if acting:
        settings["callbacks"] = acting
    if any(_class_name(entry) not in BLIND_TO_VALIDATION for entry in acting):
        settings |= _chosen(trainer, VALIDATION_DEFAULTS)
    return settings


def _class_name(entry: Mapping[str, Any]) -> str:
    return str(entry["class_path"]).rpartition(".")[2]


def _chosen(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return with_overrides(defaults, {name: settings.get(name) for name in defaults})


def _replaced(config: Mapping[str, Any], names: list[str], value: Any) -> dict[str, Any]:
    first, *rest = names
    present = config[first]
    return {**config, first: _replaced(present, rest, value) if rest else value}


def _number_of_devices(devices: Any) -> Any:
    """[2, 5], "2,5" and 2 are two devices each: which ones they are changes no bits."""
    if isinstance(devices, str):
        indices = [part for part in devices.split(",") if part.strip()]
        devices = indices if "," in devices else devices.strip()
    if isinstance(devices, list | tuple):
        return len(devices)
    return int(devices) if str(devices).lstrip("-").isdigit() else devices
