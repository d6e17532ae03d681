"""What read the activations of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exports import Trained


def extractor_of(trained: Trained, store: str | None = None) -> Mapping[str, Any]:
    """The settings of the extractor, as plain values; empty where nobody knows them.

    Args:
        trained: the run or checkpoint.
        store: activation store that says it, in the place of the one that the run was trained on.
    """
    from datamodules.shards import ActivationStore, is_store

    record = trained.record
    named = store or (None if record is None else record.lineage.store)
    if named is not None and (store is not None or is_store(named)):
        described: Mapping[str, Any] = ActivationStore(named, verify=False).manifest.source.get("extractor", {})
        if described:
            return described
    settings = {} if record is None else record.spec.get("data", {}).get("init_args", {})
    return settings.get("extractor") or {}
