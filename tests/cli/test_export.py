"""`export` and `import` on the command line, from a tiny run to the same numbers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli import main
from run_store.record import read_record
from tests.cli.jobs import ROOT
from tests.exports.hub_server import OWNER

JOB = {
    "run": {"name": "tiny", "identity": {"code": False}},
    "model": {
        "class_path": "SparseAutoencoding",
        "init_args": {"autoencoder": {"class_path": "BatchTopK", "init_args": {"d_sae": 32, "k": 3}}},
    },
    "data": {
        "class_path": "ActivationDataModule",
        "init_args": {"batch_size": 64, "validation_share": 0.2, "block_rows": 4},
    },
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": [{"class_path": "SaveCheckpoints", "init_args": {"every_n_steps": 10}}],
    },
}


@pytest.fixture(scope="module")
def job(store, tmp_path_factory):
    """The config of a finished run, and the folder of all runs."""
    folder = tmp_path_factory.mktemp("job")
    settings = json.loads(json.dumps(JOB))
    settings["run"]["folder"] = str(folder / "runs")
    settings["data"]["init_args"]["store"] = str(store)
    config = folder / "job.yaml"
    config.write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(config)]) == 0
    return config, folder / "runs"


@pytest.fixture
def run(job, tmp_path):
    """The finished run, to be spoilt."""
    shutil.copytree(job[1], tmp_path / "runs")
    (folder,) = (tmp_path / "runs").glob("*/spec-*/v*")
    return folder


def exported(run, output, format="saelens", *more):
    return main(["export", "--run", str(run), "--format", format, "--output", str(output), *more])


def validated(config, capsys, *more):
    capsys.readouterr()
    assert main(["validate", "--config", str(config), *more]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "val/" in line]
    return {row[1].strip(): float(row[2]) for row in rows}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("format", ["saelens", "safetensors"])
def test_what_is_exported_and_imported_measures_the_same(job, run, tmp_path, capsys, format):
    config, _ = job
    expected = validated(config, capsys, "--resume", str(run))
    assert exported(run, tmp_path / "files", format) == 0
    assert str(tmp_path / "files") in capsys.readouterr().out
    assert main(["import", str(tmp_path / "files"), "--output", str(tmp_path / "imported")]) == 0
    overlay = tmp_path / "imported" / "config.yaml"
    assert f"--config {overlay}" in capsys.readouterr().out
    measured = validated(config, capsys, "--config", str(overlay))
    for name in ("val/fvu", "val/l0", "val/cosine"):
        assert measured[name] == pytest.approx(expected[name], rel=1e-4)


@pytest.mark.slow
def test_a_fit_starts_from_what_was_imported(job, run, tmp_path, capsys):
    assert exported(run, tmp_path / "files") == 0
    assert main(["import", str(tmp_path / "files"), "--output", str(tmp_path / "imported")]) == 0
    overlay = str(tmp_path / "imported" / "config.yaml")
    folder = ["--run.folder", str(tmp_path / "new")]
    assert main(["fit", "--config", str(job[0]), "--config", overlay, *folder, "--trainer.max_steps", "2"]) == 0
    (new,) = (tmp_path / "new").glob("*/spec-*/v*")
    record = read_record(new)
    assert record.lineage.parent_checkpoint == str(tmp_path / "imported" / "checkpoint")
    assert record.model == "JumpReLU"
    # two steps with a warm-up change little: a fresh start would be near 1
    assert record.metrics["train/fvu"] < 0.7


def test_a_format_of_text_encoders_is_refused(run, tmp_path, capsys):
    assert exported(run, tmp_path / "files", "onnx") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "format onnx is not for a sparse autoencoder, which this is: choose saelens, sparsify or safetensors" in line


def test_the_card_tells_variant_metrics_data_and_code(run, tmp_path):
    assert exported(run, tmp_path / "files") == 0
    card = (tmp_path / "files" / "README.md").read_text()
    record = read_record(run)
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "saelens"
    expected = ("| variant | BatchTopK |", record.id, record.git["commit"] or "no commit", record.lineage.store_sha256)
    for text in (*expected, "val/fvu", "text.tokenizer", "d_sae: 32", 'load_from_disk("files")'):
        assert text in card
    assert str(tmp_path) not in card


def test_the_best_checkpoint_is_by_its_own_metrics(run, tmp_path, capsys):
    folders = sorted((run / "checkpoints").iterdir())
    for folder, value in zip(folders, [0.5, 0.1, 0.3], strict=False):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"metrics": {"val/mse": value}}))
    # the newest one is named by the record, and what is in it is not as it was recorded
    record = json.loads((run / "metadata.json").read_text())
    record["outputs"] = [output for output in record["outputs"] if not output["name"].endswith("manifest.json")]
    (run / "metadata.json").write_text(json.dumps(record))
    assert exported(run, tmp_path / "files", "saelens", "--checkpoint", "best", "--metric", "val/mse") == 0
    assert str(folders[1]) in capsys.readouterr().out
    assert exported(run, tmp_path / "other", "saelens", "--checkpoint", str(folders[0])) == 0
    assert str(folders[0]) in capsys.readouterr().out
    assert exported(run, tmp_path / "none", "saelens", "--checkpoint", "best") == 2
    assert "has a value of val/fvu" in capsys.readouterr().err


def test_an_export_is_pushed_and_stays(run, tmp_path, capsys, hub):
    push = ["--push-to-hub", f"{OWNER}/sae", "--private", "--revision", "k3"]
    assert exported(run, tmp_path / "files", "saelens", *push) == 0
    assert f"pushed to {hub.url}/{OWNER}/sae/tree/k3" in capsys.readouterr().out
    ((_, pushed),) = hub.commits[f"{OWNER}/sae@k3"]
    assert pushed == {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}
    assert {"README.md", "cfg.json", "sae_weights.safetensors", "lineage.json"} == set(pushed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--push-to-hub", "sae"], "does not say whose repository it is: use OWNER/sae"),
        (["--private"], "private is about a repository: name it by push_to_hub"),
        (["--revision", "x"], "revision is about a repository: name it by push_to_hub"),
    ],
)
def test_what_cannot_be_pushed_is_told_before_anything_is_written(run, tmp_path, capsys, hub, more, message):
    assert exported(run, tmp_path / "files", "saelens", *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "files").exists()


def test_a_push_that_fails_leaves_the_export(run, tmp_path, capsys, hub):
    assert exported(run, tmp_path / "files", "saelens", "--push-to-hub", "others/sae") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "could not be pushed to others/sae: the token may not write there" in line
    assert (tmp_path / "files" / "cfg.json").is_file()


def test_an_incomplete_run_is_refused_naming_what_is_missing(run, tmp_path, capsys):
    (run / "metrics.json").unlink()
    assert exported(run, tmp_path / "files") == 2
    assert "is not complete, metrics.json is missing" in capsys.readouterr().err
    newest = sorted((run / "checkpoints").iterdir())[-1]
    assert exported(newest, tmp_path / "files") == 2
    assert "is not complete, metrics.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "files").exists()


def test_an_unfinished_run_is_refused_by_its_status(run, tmp_path, capsys):
    content = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps(content | {"status": "interrupted"}))
    assert exported(run, tmp_path / "files") == 2
    assert f"its status is interrupted: finish it by python main.py runs resume {run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export"], "is missing: python main.py export --"),
        (["export", "--run", "x", "--format", "gguf", "--output", "y"], "format cannot be 'gguf'"),
        (["export", "--rum", "x", "--run", "x", "--format", "saelens", "--output", "y"], "the nearest are run"),
        (["export", "--run", "nowhere", "--format", "saelens", "--output", "y"], "there is no run nowhere"),
        (["import", "x"], "--output is missing: python main.py import --output VALUE"),
        (["import", "--output", "y"], "SOURCE is missing: python main.py import SOURCE"),
        (["import", "nowhere", "--output", "y"], "nowhere holds no autoencoder that can be imported"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_variant_that_the_format_does_not_have_is_one_line(run, tmp_path, capsys):
    assert exported(run, tmp_path / "files", "sparsify") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "and BatchTopK keeps what exceeds a threshold" in line


@pytest.mark.parametrize("verb", ["export", "import"])
def test_help_does_not_import_torch(verb):
    code = (
        "import sys\nfrom cli import main\n"
        f"try:\n    main(['{verb}', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_checkpoint_by_its_path_is_measured(job, run, capsys):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    expected = validated(job[0], capsys, "--resume", str(run))
    assert validated(job[0], capsys, "--run.source", "path", "--run.path", str(newest)) == expected
    assert Path(newest).is_dir()
