"""From what a run or a store says of its extractor to a reader of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backbones import Extractor, JointExtractor, TextEncoder
from explanations.latent_reader import LatentReader
from lightning_modules.trainee import Trainee
from run_store import UserError

SETTINGS = ("model", "revision", "remote_code_of", "dtype", "attention")
"""Of an extractor, what decides what it reads; the hook points are the autoencoder's."""


def open_reader(member: Trainee, described: Mapping[str, Any], max_length: int | None = None) -> LatentReader:
    """A reader for all the embedding models that an autoencoder has a side for. Nothing is loaded yet.

    A side is told by its hook point: the last one of each model that the autoencoder reconstructs. Pooling, limit and
    normalisation are what sentence-transformers has saved with the model; a base that says no pooling has that of the
    last model, which began from it with that one.

    Args:
        member: the autoencoder, in evaluation.
        described: the extractor of its activations, as a config (`class_path`, `init_args`) or a store's manifest
            (`describe()`) has it.
        max_length: tokens of a text; by default what the last model says of itself.

    Raises:
        UserError: it does not say which model was read.
    """
    models = _models(described)
    names = list(member.shapes)
    if None in models:
        settings = models[None]
        extractor: Extractor | JointExtractor = Extractor(hook_points=names, **settings)
        sides = {member.pair.reconstructed_names[-1]: settings}
    else:
        parted = [name.partition("/") for name in names]
        own = {model: [point for owner, _, point in parted if owner == model] for model in models}
        read = {model: points for model, points in own.items() if points}
        extractor = JointExtractor(
            {str(model): Extractor(hook_points=points, **models[model]) for model, points in read.items()}
        )
        last = {name.partition("/")[0]: name for name in member.pair.reconstructed_names}
        sides = {last[str(model)]: models[model] for model in read if model in last}
    encoders = {
        name: TextEncoder(settings["model"], settings.get("revision"), max_length=max_length, precision="float32")
        for name, settings in sides.items()
    }
    *others, newest = encoders.values()
    for other in others:
        if not other.says_pooling:
            other.wanted_pooling = newest.pooling
    return LatentReader(member, extractor, encoders)


def side_named(reader: LatentReader, side: str | None) -> str:
    """The hook point of a side.

    Args:
        reader: of them.
        side: a hook point, or the name of a model that has one; None is the last, which is the fine-tuned one where
            there are a base and a fine-tuned model.

    Raises:
        UserError: there is no such side.
    """
    if side is None:
        return reader.hook_points[-1]
    for name in reader.hook_points:
        if side in (name, name.partition("/")[0]):
            return name
    raise UserError(f"side {side!r} is not there: choose one of {', '.join(reader.hook_points)}")


def _models(described: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Settings of each model by its name; None is that of the only one."""
    settings = described.get("init_args", described)
    if "model" in settings:
        return {None: _chosen(settings)}
    several = settings.get("extractors", settings)
    models: dict[str | None, dict[str, Any]] = {}
    for name, one in several.items():
        inner = one.get("init_args", one) if isinstance(one, Mapping) else {}
        if "model" not in inner:
            raise UserError(
                "it is not known which model these activations are of: name an activation store that an extraction has "
                "made by --store"
            )
        models[name] = _chosen(inner)
    if not models:
        raise UserError("it is not known which model the activations are of: name their store by --store")
    return models


def _chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in SETTINGS if settings.get(name) is not None}
