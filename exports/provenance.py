"""What is known of a model's origin: its data, its run and its code, by the run's record and its store's manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datamodules.shards import read_manifest
from datamodules.text import HuggingFaceDataset
from exports.hub_names import hub_name
from exports.trained import Trained
from run_store import UserError
from run_store.record import RunRecord


@dataclass(frozen=True)
class Provenance:
    """Attributes:
    model_name: the transformer whose activations were read; None where it is not known, as the others.
    dataset: what the text was.
    extractor, text: every setting of how activations were made.
    store_sha256: of the store's manifest, and with it of all activations.
    metrics: measured on these weights.
    record: of the run.
    """

    model_name: str | None = None
    dataset: str | None = None
    extractor: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any] = field(default_factory=dict)
    store_sha256: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    record: RunRecord | None = None

    @classmethod
    def of(cls, trained: Trained | None) -> Provenance:
        """What checkpoint and record tell."""
        if trained is None:
            return cls()
        if trained.record is None:
            return cls(metrics=trained.metrics)
        extractor, text = _made_of(trained.record)
        corpus = _settings(text.get("corpus"))
        return cls(
            model_name=extractor.get("model"),
            dataset=corpus.get("name") or corpus.get("class") or _class_of(text.get("corpus")),
            extractor=extractor,
            text=text,
            store_sha256=trained.record.lineage.store_sha256,
            metrics=trained.metrics,
            record=trained.record,
        )

    @property
    def hub_dataset(self) -> str | None:
        """The text's name on a hub, where it is a whole data set from there."""
        corpus = self.text.get("corpus")
        if not isinstance(corpus, Mapping) or corpus.get("class", _class_of(corpus)) != HuggingFaceDataset.__name__:
            return None
        return None if _settings(corpus).get("data_files") else hub_name(self.dataset)

    def metadata(self) -> dict[str, Any]:
        """By the names that SAELens gives it."""
        return {
            "model_name": self.model_name,
            "dataset_path": self.dataset,
            "context_size": self.text.get("context_length"),
            "prepend_bos": self.text.get("bos"),
            "trained_with": "fulgurite",
            "run": None if self.record is None else self.record.id,
        }


def _made_of(record: RunRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of extractor and text: those in the store's manifest, else those in the run's."""
    try:
        source = {} if record.lineage.store is None else read_manifest(record.lineage.store).source
    except UserError:  # it is on another machine
        source = {}
    wanted = record.spec.get("data", {}).get("init_args", {})
    extractor, text = (_settings(source.get(name)) or _settings(wanted.get(name)) for name in ("extractor", "text"))
    return extractor, text


def _settings(described: Any) -> dict[str, Any]:
    """A class's settings, whether a config or a manifest tells them."""
    if not isinstance(described, Mapping):
        return {}
    return dict(described.get("init_args", described))


def _class_of(described: Any) -> str | None:
    path = described.get("class_path") if isinstance(described, Mapping) else None
    return str(path).rpartition(".")[2] if path else None
