"""The README.md beside an exported text encoder: what it was made from, how it was trained, and how it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones import Encoder, TextEncoder
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
        record: of the run.
    """

    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    record: RunRecord | None = None

    @classmethod
    def of(cls, trained: Trained) -> Training:
        """What checkpoint and record tell.

        Raises:
            UserError: the checkpoint is damaged.
        """
        # on "meta" the optimiser's tensors take no memory
        before = load_plain(trained.checkpoint.path / STATE, "meta").get("scores_before", {})
        return cls(before, trained.metrics, trained.record)

    @property
    def loss(self) -> Mapping[str, Any]:
        """Class and settings of what was minimised."""
        spec = {} if self.record is None else self.record.spec
        loss: Mapping[str, Any] = spec.get("model", {}).get("init_args", {}).get("loss") or {}
        return loss

    @property
    def data(self) -> Mapping[str, Any]:
        """Class and settings of the examples."""
        spec = {} if self.record is None else self.record.spec
        data: Mapping[str, Any] = spec.get("data") or {}
        return data


def encoder_card(encoder: Encoder, parts: list[TextEncoder], library: str, usage: str, training: Training) -> str:
    """Markdown with the head that model hubs read.

    Args:
        encoder: built and trained.
        parts: the models in it.
        library: that loads the files, as model hubs call it.
        usage: Python that uses them.
        training: how it came to its weights.
    """
    bases = [part.model for part in parts if _is_on_a_hub(part.model)]
    head = {
        "library_name": library,
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-similarity", "feature-extraction", "fulgurite"],
        "base_model": bases[0] if len(bases) == 1 else bases,
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


def _described(named: Mapping[str, Any]) -> str:
    """A class and its settings, those of a class in it with a dot."""
    rows: dict[str, Any] = {}

    def gather(value: Mapping[str, Any], prefix: str) -> None:
        if "class_path" in value:
            rows[prefix or "class"] = str(value["class_path"]).rpartition(".")[2]
        for name, inner in dict(value.get("init_args") or {}).items():
            where = f"{prefix}.{name}" if prefix else name
            if isinstance(inner, Mapping) and "class_path" in inner:
                gather(inner, where)
            else:
                rows[where] = inner

    gather(named, "")
    return table(rows)


def _scores(training: Training) -> str:
    told = {name: (training.before.get(name), value) for name, value in sorted(training.after.items())}
    rows = [(name, *("" if value is None else f"{value:.6g}" for value in pair)) for name, pair in told.items()]
    return columns(("", "before", "after"), rows)


def _is_on_a_hub(model: str) -> bool:
    return ":" not in model and model.count("/") == 1 and not Path(model).expanduser().exists()
