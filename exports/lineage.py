"""What an exported model was made of, as JSON beside it: names of no machine, only ids and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exports.trained import Trained
from run_store import sha256_of, write_json
from run_store.checkpoints import MANIFEST

LINEAGE = "lineage.json"


def lineage_of(trained: Trained) -> dict[str, Any]:
    """Run, parent, code, data and checkpoint; None where there is none."""
    checkpoint, record = trained.checkpoint, trained.record
    weights = {
        "step": checkpoint.step,
        "manifest_sha256": sha256_of(checkpoint.path / MANIFEST),
        "files": {name: asdict(file) for name, file in sorted(checkpoint.files.items())},
    }
    lineage: dict[str, Any] = {"format": "fulgurite-lineage", "version": 1, "checkpoint": weights}
    if trained.member is not None:
        lineage["member"] = trained.member
    if record is None:
        return lineage
    return lineage | {
        "run": record.id,
        "name": record.name,
        "spec_fingerprint": record.spec_fingerprint,
        "exec_fingerprint": record.exec_fingerprint,
        "code": {name: record.git.get(name) for name in ("commit", "dirty")},
        "parent_run": record.lineage.parent_run,
        "initial_weights_sha256": record.spec.get("initial_weights"),
        "store_sha256": record.lineage.store_sha256,
    }


def write_lineage(lineage: Mapping[str, Any], folder: Path) -> None:
    """Writes it into an export, where anything is known."""
    if lineage:
        write_json(folder / LINEAGE, dict(lineage))
