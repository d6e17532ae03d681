"""`dashboard --neuronpedia`, from a tiny run to files that other code reads."""

from __future__ import annotations

import json

import pytest
import yaml

from cli import main
from tests.cli.test_export import JOB

HOOK_POINT = "encoder.layer.2"


def trained(folder, store):
    settings = json.loads(json.dumps(JOB))
    settings["run"]["folder"] = str(folder / "runs")
    settings["data"]["init_args"]["store"] = str(store)
    (folder / "job.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(folder / "job.yaml")]) == 0
    (run,) = (folder / "runs").glob("*/spec-*/v*")
    return run


@pytest.mark.slow
def test_a_run_becomes_files_of_its_latents(write_store, tmp_path, capsys):
    run = trained(tmp_path, write_store(tmp_path / "store", (HOOK_POINT,)))
    out = ["--out", str(tmp_path / "page"), "--neuronpedia", str(tmp_path / "np")]
    assert main(["dashboard", "--run", str(run), *out]) == 0
    (place,) = (tmp_path / "np").iterdir()
    assert f"wrote {place} for Neuronpedia" in capsys.readouterr().out
    batch = json.loads((place / "batch-0.json").read_text())
    assert (batch["layer"], batch["sae_set"]) == (2, "tiny")
    assert [feature["feature_index"] for feature in batch["features"]] == list(range(32))
    fired = [feature for feature in batch["features"] if feature["frac_nonzero"]]
    assert fired
    for feature in fired:
        # of the whole store, whose documents have 50 rows
        assert sum(feature["freq_hist_data_bar_heights"]) == pytest.approx(2000 * feature["frac_nonzero"], abs=0.02)
        top = feature["activations"][0]
        assert len(top["tokens"]) == len(top["values"])
        assert top["values"][top["qualifying_token_index"]] == pytest.approx(top["bin_max"], rel=1e-3)


@pytest.mark.slow
def test_a_hook_point_of_no_layer_is_refused_before_anything_is_written(store, tmp_path, capsys):
    run = trained(tmp_path, store)
    out = ["--out", str(tmp_path / "page"), "--neuronpedia", str(tmp_path / "np")]
    assert main(["dashboard", "--run", str(run), *out]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "neuronpedia: it files autoencoders by the number of a layer, and layer has none" in line
    assert not (tmp_path / "page").exists()
