"""`dashboard` on the command line, from tiny runs to pages."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from cli import main
from tests.cli.test_export import JOB


def trained(folder, store, name, **settings):
    """The folder of a finished run of other settings of the model."""
    job = json.loads(json.dumps(JOB))
    job["run"] |= {"name": name, "folder": str(folder / "runs")}
    job["data"]["init_args"] |= {"store": str(store), **settings.pop("data", {})}
    job["model"]["init_args"] |= settings
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(job))
    assert main(["fit", "--config", str(config)]) == 0
    (run,) = (folder / "runs" / name).glob("spec-*/v*")
    return run


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("dashboard"), store, "tiny")


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["dashboard", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_gets_a_page_beside_its_checkpoints(run, capsys):
    assert main(["dashboard", "--run", str(run), "--checkpoint", "best", "--tokens", "500"]) == 0
    page = (run / "dashboard" / "index.html").read_text()
    assert str(run / "dashboard" / "index.html") in capsys.readouterr().out
    assert "BatchTopK, 32 latents" in page
    assert "500 tokens of 10 documents" in page
    assert "The store names no single model, so there is no unembedding." in page
    # a person may make it anew, and the run stays complete
    assert main(["dashboard", "--run", str(run), "--rows", "validation"]) == 0
    assert "(validation)" in (run / "dashboard" / "index.html").read_text()


def test_what_cannot_be_shown_is_one_sentence(run, store, write_store, tmp_path, capsys):
    assert "there is no run nobody" in refused(capsys, "--run", "nobody", "--folder", tmp_path)
    assert "no checkpoint" in refused(capsys, "--run", run, "--checkpoint", tmp_path / "step-1")
    assert "there is no" in refused(capsys, "--run", run, "--member", "k3")
    wrong = write_store(tmp_path / "wrong", ("other",))
    assert "has other of width 16: name another --store" in refused(capsys, "--run", run, "--store", wrong)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    assert "choose another --out" in refused(capsys, "--run", run, "--out", tmp_path / "mine")


@pytest.mark.slow
def test_a_store_that_was_moved_is_named(write_store, tmp_path, capsys):
    run = trained(tmp_path, write_store(tmp_path / "first"), "moved")
    shutil.move(tmp_path / "first", tmp_path / "second")
    assert "is not there: name the folder where it is by --store" in refused(capsys, "--run", run)
    out = tmp_path / "out"
    assert main(["dashboard", "--run", str(run), "--store", str(tmp_path / "second"), "--out", str(out)]) == 0
    assert (out / "index.html").is_file()


@pytest.mark.slow
def test_members_of_a_sweep_get_a_page_each_or_one_alone(store, tmp_path):
    run = trained(tmp_path, store, "sweep", members={"k3": {"lr": 1e-3}, "slow": {"lr": 1e-4}})
    assert main(["dashboard", "--run", str(run), "--out", str(tmp_path / "all"), "--tokens", "300"]) == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["k3", "slow"]
    assert main(["dashboard", "--run", str(run), "--out", str(tmp_path / "one"), "--member", "slow"]) == 0
    assert "<title>sweep slow" in (tmp_path / "one" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("wiring", ["Crosscoder", "Transcoder"])
def test_other_wirings_are_shown_too(write_store, tmp_path, wiring):
    store = write_store(tmp_path / "two", ("a", "b"))
    autoencoder = {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 3, "wiring": {"class_path": wiring}}}
    run = trained(tmp_path, store, "wired", autoencoder=autoencoder)
    assert main(["dashboard", "--run", str(run), "--tokens", "300"]) == 0
    assert (run / "dashboard" / "data" / "latents-0000.js").is_file()
