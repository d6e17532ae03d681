"""Runs and predictions to store."""

from __future__ import annotations

from typing import Any

from run_store.predictions import Prediction, RunEntry


def entry(run_id: str = "a1", **changes: Any) -> RunEntry:
    """A run of nobody; the folder follows from the id."""
    day = f"2026-01-{1 + sum(map(ord, run_id)) % 28:02}T00:00:00.000000+00:00"
    values = {"name": "sae", "folder": f"sae/spec-00000000_exec-00000000/{run_id}", "job_id": None, "user_id": None}
    return RunEntry(**{"run_id": run_id, "created_at": day, **values, **changes})


def prediction(sample: int = 0, step: int = 10, run_id: str = "a1", **changes: Any) -> Prediction:
    """What a run made of a sample, in the epoch step // 10."""
    values: dict[str, Any] = {"prompt": f"prompt {sample}", "ground_truth": None, "member": ""}
    content = {"kind": "plain", "text": f"step {step}"}
    key = {"run_id": run_id, "step": step, "sample_index": sample, "epoch": step // 10}
    return Prediction(**{**values, **key, "prediction": content, "scores": {"error": float(step)}, **changes})
