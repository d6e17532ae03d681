"""`runs compare`."""

from __future__ import annotations

import json
import math
from typing import Any


def config(k: int, **more: Any) -> dict[str, Any]:
    return {"model": {"autoencoder": {"k": k, **more}}, "trainer": {"callbacks": [{"class_path": "A"}, {"n": k}]}}


def test_settings_that_differ_and_metrics_side_by_side(complete_run: Any, printed: Any) -> None:
    one = complete_run({"val/fvu": 0.5, "val/l0": 32}, config=config(32), k=32)
    other = complete_run({"val/fvu": math.nan}, config=config(64, aux=None, width=3), k=64)
    told = json.loads(printed("compare", one.id, other.id, "--json"))
    assert [run["id"] for run in told["runs"]] == [one.id, other.id]
    assert told["source"] == "config"
    assert told["settings"] == {
        "model.autoencoder.k": [32, 64],
        "model.autoencoder.width": [None, 3],
        "trainer.callbacks.1.n": [32, 64],
    }
    assert told["metrics"] == {"val/fvu": [0.5, None], "val/l0": [32, None]}
    lines = [line.split() for line in printed("compare", str(one.folder), str(other.folder)).splitlines()]
    assert ["setting", "1", "sae", "2", "sae"] in lines
    assert ["model.autoencoder.width", "–", "3"] in lines
    assert ["val/fvu", "0.5", "nan"] in lines


def test_without_a_config_the_record_tells(complete_run: Any, printed: Any) -> None:
    runs = [complete_run({}, config=config(k) if k == 32 else None, k=k, precision="16") for k in (32, 64, 128)]
    told = json.loads(printed("compare", *(run.id for run in runs), "--json"))
    assert (told["source"], told["settings"]) == ("record", {"spec.model.k": [32, 64, 128]})
    same = [complete_run({}, k=1) for _ in range(2)]
    shown = printed("compare", *(run.id for run in same))
    assert "the settings are the same" in shown
    assert "nothing was measured" in shown


def test_one_run_cannot_be_compared(complete_run: Any, printed: Any) -> None:
    run = complete_run({})
    assert "give two different ones" in printed("compare", run.id, code=2)
    assert "give two different ones" in printed("compare", run.id, "sae", code=2)
    assert "RUNS is missing" in printed("compare", code=2)
