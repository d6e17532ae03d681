"""The README.md beside an exported text encoder: what it was made from, how it was trained, and how it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from backbones import Encoder, TextEncoder
from exports.hub_names import hub_name
from exports.lineage import lineage_of
from exports.markdown import columns, front_matter, run_section, table
from exports.trained import Trained
from lightning_modules.checkpoint_files import STATE, load_plain
from run_store.record import RunRecord


@dataclass(frozen=True)
class Training:
    """How an encoder came to its weights, as far as it is known.

    Attributes:
        before: metrics of the weights that training began with, by name.
        after: metrics of the exported weights.
        data: the datamodule of the examples, as class_path and init_args.
        loss: what was minimised, likewise.
        record: of the run.
        lineage: see `lineage_of`.
    """

    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    record: RunRecord | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, trained: Trained) -> Training:
        """What checkpoint and record tell.

        Raises:
            UserError: the checkpoint is damaged.
        """
        # on "meta" the optimiser's tensors take no memory
        before = load_plain(trained.checkpoint.path / STATE, "meta").get("scores_before", {})
        if trained.record is None:
            return cls(before, trained.metrics, lineage=lineage_of(trained))
        spec = trained.record.spec
        loss = spec.get("model", {}).get("init_args", {}).get("loss") or {}
        return cls(before, trained.metrics, _data(trained.record), loss, trained.record, lineage_of(trained))


def encoder_card(encoder: Encoder, parts: list[TextEncoder], library: str, usage: str, training: Training) -> str:
    """Markdown with the head that model hubs read.

    Args:
        encoder: built and trained.
        parts: the models in it.
        library: that loads the files, as model hubs call it.
        usage: Python that uses them.
        training: how it came to its weights.
    """
    bases = [name for part in parts if (name := hub_name(part.model))]
    head = {
        "library_name": library,
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-similarity", "feature-extraction", "fulgurite"],
        "base_model": bases[0] if len(bases) == 1 else bases,
        "base_model_relation": "finetune" if bases and training.record else None,
    }
    names = " and ".join(Path(part.model.rpartition(":")[2]).name for part in parts)
    pieces = [
        front_matter(head),
        f"# {names}, fine-tuned\n" if training.record else f"# {names}\n",
        f"Texts become vectors of {encoder.width} numbers, to be compared by their cosine.\n",
        f"```python\n{usage}```\n",
        *(_origin(part, index if len(parts) > 1 else None) for index, part in enumerate(parts)),
        "## Training data\n",
        _described(training.data),
        "## Loss\n",
        _described(training.loss),
        "## Metrics\n",
        _scores(training),
        *run_section(training.record),
    ]
    return "\n".join(pieces)


def _origin(part: TextEncoder, index: int | None) -> str:
    """What the model was before training, and how it reads texts."""
    lineage = part.lineage()
    prompts = {f"prompt of {column}s": repr(prompt) for column, prompt in lineage.pop("prompts").items()}
    title = "## Base model\n" if index is None else f"## Base model of part {index}\n"
    return f"{title}\n{table({name.replace('_', ' '): value for name, value in lineage.items()} | prompts)}"


def _data(record: RunRecord) -> Mapping[str, Any]:
    """Settings of the data as the last attempt's config has them, with the hash of what the source yielded."""
    spec: Mapping[str, Any] = record.spec.get("data") or {}
    configs = [record.folder / f"config.{attempt.number}.yaml" for attempt in reversed(record.attempts)]
    config = next((path for path in configs if path.is_file()), None)
    if config is None:
        return spec
    said: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
    known = spec.get("init_args", {})
    hashes = {name: value["sha256"] for name, value in known.items() if isinstance(value, dict) and "sha256" in value}
    said.get("init_args", {}).pop("cache", None)  # where the same tokens were kept
    return {**said, "sha256": hashes}


def _described(named: Mapping[str, Any]) -> str:
    """A class and its settings, those in another with a dot."""
    rows: dict[str, Any] = {}

    def gather(value: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, inner in value.items():
            if name == "class_path":
                rows[".".join(path) or "class"] = str(inner).rpartition(".")[2]
            elif isinstance(inner, Mapping):
                gather(inner, path if name == "init_args" else (*path, name))
            else:
                rows[".".join((*path, name))] = inner

    gather(named, ())
    return table(rows)


def _scores(training: Training) -> str:
    told = {name: (training.before.get(name), value) for name, value in sorted(training.after.items())}
    rows = [(name, *("" if value is None else f"{value:.6g}" for value in pair)) for name, pair in told.items()]
    return columns(("", "before", "after"), rows)
