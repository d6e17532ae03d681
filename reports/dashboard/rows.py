"""Which stored rows a dashboard is made of: the store that a run was trained on, and some of its documents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from datamodules.shards import ActivationStore, is_store, split_ranges
from datamodules.shards.row_ranges import some_documents
from run_store import UserError
from run_store.record import RunRecord

Part = Literal["all", "train", "validation", "test"]


def open_store(record: RunRecord | None, named: str | None, shapes: Mapping[str, int]) -> ActivationStore:
    """The store that a person names, or the one that a run was trained on.

    Args:
        record: of the run; None for an autoencoder that is of none.
        named: the folder of a store.
        shapes: names and widths of the hook points that are read.

    Raises:
        UserError: there is no store, or it is not one of these hook points, or not of text.
    """
    store = ActivationStore(named or _folder_of(record), verify=False)
    for name, width in shapes.items():
        if store.hook_points.get(name) != width:
            there = ", ".join(f"{other} of width {d}" for other, d in store.hook_points.items())
            raise UserError(
                f"the autoencoder reads {name} of width {width}, and {store.folder} has {there}: name another --store"
            )
    if "tokenizer" not in store.manifest.source.get("text", {}):
        raise UserError(f"{store.folder} does not say what text its rows are of, so there is nothing to show")
    return store


def _folder_of(record: RunRecord | None) -> Path:
    if record is None:
        raise UserError("it is not known what this autoencoder was trained on: name an activation store by --store")
    if record.lineage.store is None:
        raise UserError(
            f"the run {record.folder} kept no activations: extract some with its data.extractor and data.text by "
            "python main.py predict --config configs/extract.yaml, and name that store by --store"
        )
    folder = Path(record.lineage.store)
    if not is_store(folder):
        raise UserError(f"the run's store {folder} is not there: name the folder where it is by --store")
    return folder


def chosen_ranges(store: ActivationStore, record: RunRecord | None, part: Part, tokens: int | None) -> Tensor:
    """int64 [n, 2] first row of each document that is read, and the row after its last.

    Args:
        store: of the rows.
        record: of the run, for which documents it held out.
        part: of the documents.
        tokens: at most so many rows, of documents that are drawn; None takes all.

    Raises:
        UserError: there are none.
    """
    ranges = store.document_ranges()
    if part != "all":
        data = _settings(record)
        try:
            held_out = int(data["seed"]), float(data["validation_share"]), float(data["test_share"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"it is not known which documents are for {part}: leave out --rows") from None
        ranges = split_ranges(store.document_names, ranges, *held_out)[part]
    chosen = some_documents(ranges, tokens)
    if not len(chosen):
        raise UserError(f"{store.folder} has no rows of {part} documents: choose another --rows")
    return chosen


def _settings(record: RunRecord | None) -> Mapping[str, Any]:
    data = {} if record is None else record.spec.get("data", {})
    settings: Mapping[str, Any] = data.get("init_args", {})
    return settings
