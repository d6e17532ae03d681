"""What benches of embedding fine-tuning share: the shipped recipe, and triplets in files that any library can read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer

import cli.class_names  # noqa: F401  short class paths in configs
from callbacks import TrainingProgress
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.text.bad_rows import BadRows
from datamodules.triplets import CodeSearchTriplets, TripletFiles
from datamodules.triplets.source import Example
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from run_store import atomic_file

CONFIG = Path(__file__).parents[1] / "configs" / "embedder.yaml"


def recipe(encoder: dict[str, Any], **settings: Any) -> ContrastiveEmbedding:
    """The shipped config's model.

    Args:
        encoder: settings of its text encoder that are others.
        **settings: those of ContrastiveEmbedding that are others.
    """
    config = yaml.safe_load(CONFIG.read_text())["model"]
    config["init_args"]["encoder"]["init_args"] |= encoder
    config["init_args"] |= settings
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ContrastiveEmbedding, "model")
    model = parser.instantiate(parser.parse_object({"model": config})).model
    assert isinstance(model, ContrastiveEmbedding)
    return model


def trainer(folder: Path, callbacks: Iterable[Callback] = (), **settings: Any) -> Trainer:
    """As the shipped config has it, but for what is written to disk: logging, progress bar and clipping on."""
    shipped = yaml.safe_load(CONFIG.read_text())["trainer"]
    kept = {name: shipped[name] for name in ("gradient_clip_val", "log_every_n_steps", "enable_model_summary")}
    return Trainer(
        accelerator="cpu",
        default_root_dir=str(folder),
        enable_checkpointing=False,
        callbacks=[TrainingProgress(), *callbacks],
        **kept,
        **settings,
    )


def triplets_in(file: Path, cache: Path, batch: int, seed: int = 0) -> TripletDataModule:
    """All triplets of a file for training, and the same for the test."""
    source = TripletFiles(str(file))
    return TripletDataModule(
        source, batch_size=batch, test=TripletFiles(str(file)), validation_share=0.0, cache=str(cache), seed=seed
    )


def write_triplets(file: Path, examples: Iterable[Example]) -> int:
    """Examples with one negative each as JSON lines with the fields anchor, positive, negative; says how many."""
    rows = [
        json.dumps({"anchor": example.anchor, "positive": example.positive, "negative": example.negatives[0]})
        for example in examples
    ]
    with atomic_file(file) as temporary:
        temporary.write_text("\n".join(rows) + "\n")
    return len(rows)


class CodeSearch:
    """Triplets of docstring, function and another function of the same module, handed out so that no module is met
    twice.

    Args:
        packages: that are mined; empty for the standard library.
    """

    def __init__(self, packages: list[str]) -> None:
        examples = CodeSearchTriplets(packages=packages).examples(BadRows("refuse", "triplets"))
        with_negative = (example for example in examples if example.negatives)
        self._modules = (list(module) for _, module in groupby(with_negative, key=lambda example: example.group))

    def take(self, count: int) -> Iterator[Example]:
        """At most so many triplets of modules that no earlier call had; what is left of the last module is lost."""
        return islice((example for module in self._modules for example in module), count)
