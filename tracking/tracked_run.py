"""What a tracker is told of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_store.layout import METADATA_NAME
from run_store.numbers import number_of
from run_store.record import read_record


@dataclass(frozen=True)
class TrackedRun:
    """Attributes:
    label: its name and number, such as sae-3.
    id: as its record has it; None for a folder that is no run's.
    lineage: ids and hashes by name: run, variant, spec, exec, environment, commit, parent, initial weights, store.
    """

    label: str
    id: str | None = None
    lineage: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> TrackedRun:
        """The run in a folder, or the one that is measured in a folder inside it.

        Raises:
            UserError: its record is damaged.
        """
        run = next((place for place in (folder, folder.parent) if (place / METADATA_NAME).exists()), None)
        if run is None:
            return cls(folder.name)
        record = read_record(run)
        known: dict[str, Any] = {
            "run": record.id,
            "variant": run.name,
            "spec": record.spec_fingerprint,
            "exec": record.exec_fingerprint,
            "environment": record.environment.get("name"),
            "commit": record.git.get("commit"),
            "parent": record.lineage.parent_run,
            "initial_weights": record.spec.get("initial_weights"),
            "store": record.lineage.store_sha256,
        }
        lineage = {name: str(value) for name, value in known.items() if value is not None}
        return cls(f"{record.name}-{number_of(run)}", record.id, lineage)
