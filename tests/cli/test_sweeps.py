"""A sweep on the command line, from a few lines of an overlay to exported members."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from cli import main
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.completion import completion_of
from run_store.record import read_record
from tests.exports.hub_server import OWNER

CONFIGS = Path(__file__).parents[2] / "configs"
JOB = {
    "run": {"name": "tiny", "identity": {"code": False}},
    "model": {
        "class_path": "SparseAutoencoding",
        "init_args": {"autoencoder": {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 3}}},
    },
    "data": {
        "class_path": "ActivationDataModule",
        "init_args": {"batch_size": 64, "validation_share": 0.2, "block_rows": 4},
    },
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": [{"class_path": "RunSummary"}, {"class_path": "SaveCheckpoints"}],
    },
}
SWEEP = {
    "model": {
        "init_args": {
            "members": {
                "k3": {},
                "k5": {"autoencoder": {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 5}}},
                "relu": {"lr": 0.001, "autoencoder": {"class_path": "ReLU", "init_args": {"d_sae": 24}}},
            }
        }
    }
}


@pytest.fixture(scope="module")
def configs(store, tmp_path_factory):
    """--config of the job and of the sweep, as they are typed, and the folder of all runs."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = json.loads(json.dumps(JOB))
    settings["run"]["folder"] = str(folder / "runs")
    settings["data"]["init_args"]["store"] = str(store)
    for name, config in (("job", settings), ("sweep", SWEEP)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(folder / "job.yaml")], ["--config", str(folder / "sweep.yaml")], folder / "runs"


@pytest.fixture(scope="module")
def finished(configs):
    """The folder of a finished sweep."""
    job, sweep, runs = configs
    assert main(["fit", *job, *sweep]) == 0
    (run,) = runs.glob("*/spec-*/v*")
    return run


@pytest.fixture
def copied(finished, tmp_path):
    """The same, to be gone on from."""
    shutil.copytree(finished.parents[2], tmp_path / "runs")
    return tmp_path / "runs" / finished.relative_to(finished.parents[2])


def test_the_record_names_each_members_figures(finished):
    record = read_record(finished)
    assert completion_of(finished).complete
    assert record.model == "2 × TopK, ReLU"
    for name in ("k3", "k5", "relu"):
        assert 0 < record.metrics[f"{name}/val/fvu"] < 1
    mean = sum(record.metrics[f"{name}/val/fvu"] for name in ("k3", "k5", "relu")) / 3
    assert record.metrics["val/fvu"] == pytest.approx(mean)
    assert json.loads((finished / "diagnosis.json").read_text()).keys() == {"k3", "k5", "relu"}


def test_a_sweep_loads_from_its_checkpoint_alone(finished):
    model = SparseAutoencoding.load_from_checkpoint(sorted((finished / "checkpoints").iterdir())[-1])
    assert [type(member.autoencoder).__name__ for member in model.members.by_name.values()] == ["TopK", "TopK", "ReLU"]
    codes, (reconstruction,) = model.members["k5"](torch.randn(7, 16))
    assert reconstruction.shape == (7, 16)
    assert codes.dense().shape == (7, 32)


def exported(run, output, *more, format="safetensors"):
    return main(["export", "--run", str(run), "--format", format, "--output", str(output), *more])


def test_a_member_is_exported_under_its_own_figures_and_the_sweep_a_folder_a_member(finished, tmp_path):
    assert exported(finished, tmp_path / "one", "--member", "k5", format="saelens") == 0
    assert json.loads((tmp_path / "one" / "cfg.json").read_text())["k"] == 5
    card = (tmp_path / "one" / "README.md").read_text()
    assert f"| val/fvu | {read_record(finished).metrics['k5/val/fvu']:.6g} |" in card
    assert "k3/val" not in card.split("## Training")[0]
    assert exported(finished, tmp_path / "all") == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["k3", "k5", "relu"]
    settings = json.loads((tmp_path / "all" / "k3" / "autoencoder.json").read_text())["model"]
    assert settings["autoencoder"]["init_args"]["k"] == 3, "that of the model"


def test_a_sweep_becomes_one_repository_with_a_card_of_all(finished, tmp_path, capsys, hub):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "diary.txt").touch()
    push = ["--push-to-hub", f"{OWNER}/sweep"]
    assert exported(finished, tmp_path / "filled", *push) == 2
    assert "all of it would be pushed: choose another folder" in capsys.readouterr().err
    assert exported(finished, tmp_path / "all", *push) == 0
    ((_, pushed),) = hub.commits[f"{OWNER}/sweep@main"]
    assert {name.partition("/")[0] for name in pushed} == {"README.md", "k3", "k5", "relu"}
    card = pushed["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "fulgurite"
    assert f"| [k5](k5/README.md) | {read_record(finished).metrics['k5/val/fvu']:.6g} |" in card


def test_an_exported_member_is_imported_and_measures_the_same(configs, finished, tmp_path, capsys):
    assert exported(finished, tmp_path / "files", "--member", "relu") == 0
    assert main(["import", str(tmp_path / "files"), "--output", str(tmp_path / "imported")]) == 0
    capsys.readouterr()
    job = configs[0]
    assert main(["validate", *job, "--config", str(tmp_path / "imported" / "config.yaml")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "val/fvu " in line)
    assert float(row.split("│")[2]) == pytest.approx(read_record(finished).metrics["relu/val/fvu"], rel=1e-4)


def test_each_member_is_exported_from_its_own_best_checkpoint(copied, tmp_path, capsys):
    folders = sorted((copied / "checkpoints").iterdir())
    for folder, figures in zip(folders, [(0.1, 0.5), (0.3, 0.2)], strict=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        metrics = dict(zip(("k3/val/fvu", "k5/val/fvu"), figures, strict=True)) | {"relu/val/fvu": 0.4}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"metrics": metrics}))
    record = json.loads((copied / "metadata.json").read_text())
    record["outputs"] = [output for output in record["outputs"] if not output["name"].endswith("manifest.json")]
    (copied / "metadata.json").write_text(json.dumps(record))
    for name, folder in zip(("k3", "k5"), folders, strict=True):
        assert exported(copied, tmp_path / name, "--member", name, "--checkpoint", "best") == 0
        assert f"exported {name} of {folder} " in capsys.readouterr().out


def test_an_unknown_member_is_one_sentence_with_the_names(finished, tmp_path, capsys):
    assert exported(finished, tmp_path / "none", "--member", "k7") == 2
    assert "error: the model has the members k3, k5, relu: there is no k7" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_training_starts_from_a_member(configs, copied, capsys):
    job = [*configs[0], "--run.folder", str(copied.parents[2]), "--trainer.max_steps", "1"]
    source = ["--run.source", "run", "--run.path", str(copied)]
    assert main(["fit", *job, *source]) == 2
    assert "those of the members k3, k5, relu: name one of them in run.member" in capsys.readouterr().err
    assert main(["fit", *job, *source, "--run.member", "k3"]) == 0
    run = next(path.parent for path in copied.parents[2].glob("*/*/*/metadata.json") if "of k3" in path.read_text())
    assert read_record(run).metrics["train/fvu"] < 1.5 * read_record(copied).metrics["k3/val/fvu"]


def test_an_interrupted_sweep_goes_on_to_the_same_weights(configs, finished, copied):
    newest = sorted((copied / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    content = json.loads((copied / "metadata.json").read_text())
    (copied / "metadata.json").write_text(json.dumps({**content, "status": "interrupted"}))
    job, sweep, _ = configs
    assert main(["fit", *job, *sweep, "--run.folder", str(copied.parents[2])]) == 0
    for folder in (copied, finished):
        assert (folder / "checkpoints" / newest.name).is_dir()
    ours, theirs = (
        SparseAutoencoding.load_from_checkpoint(folder / "checkpoints" / newest.name).state_dict()
        for folder in (copied, finished)
    )
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


def test_members_are_set_and_added_on_the_command_line_by_the_names_of_overlays(configs, tmp_path):
    job, sweep, _ = configs
    more = ["--run.folder", str(tmp_path), "--trainer.max_steps", "1"]
    more += ["--model.members.k5.autoencoder.k", "6", "--model.members.new.autoencoder", "jumprelu"]
    assert main(["fit", *job, *sweep, *more]) == 0
    (run,) = tmp_path.glob("*/spec-*/v*")
    settings = yaml.safe_load((run / "config.1.yaml").read_text())["model"]["init_args"]["members"]
    assert settings["k5"]["autoencoder"]["init_args"]["k"] == 6
    assert settings["new"]["autoencoder"]["class_path"].endswith(".JumpReLU")
    (checkpoint,) = (run / "checkpoints").iterdir()
    members = SparseAutoencoding.load_from_checkpoint(checkpoint).members
    assert [members[name].autoencoder.d_sae for name in ("k3", "k5", "relu", "new")] == [32, 32, 24, 3072]


def test_validate_measures_every_member_and_refuses_the_settings_of_a_single_training(configs, finished, capsys):
    job, sweep, _ = configs
    capsys.readouterr()
    assert main(["validate", *job, *sweep, "--resume", str(finished)]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "val/fvu " in line]
    measured = {row[1].strip(): float(row[2]) for row in rows}
    recorded = read_record(finished).metrics
    assert measured == {name: pytest.approx(recorded[name], rel=1e-4) for name in measured}
    assert set(measured) == {"val/fvu", "k3/val/fvu", "k5/val/fvu", "relu/val/fvu"}
    assert main(["validate", *job, "--resume", str(finished)]) == 2
    assert "the checkpoint has the members k3, k5, relu and the model no members" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--model.members.val.lr", "0.1"], "error: model.members has a member called val, which means something else"),
        (["--model.members.k9.hook_points", "[z]"], "error: member k9: hook_points names z, and the data has layer"),
        (["--model.members.k9.lrr", "1"], "lrr"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_leaves_no_run(configs, tmp_path, capsys, more, sentence):
    job, sweep, _ = configs
    assert main(["fit", *job, *sweep, "--run.folder", str(tmp_path), *more]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert not list(tmp_path.glob("*/spec-*/v*"))


@pytest.mark.slow
@pytest.mark.parametrize("overlay", sorted(path.stem for path in (CONFIGS / "sweep").glob("*.yaml")))
def test_every_shipped_overlay_is_a_sweep_of_the_main_job(overlay, tmp_path, capsys):
    config = ["--config", str(CONFIGS / "sae.yaml"), "--config", str(CONFIGS / "sweep" / f"{overlay}.yaml")]
    small = ["--data.store", str(tmp_path / "store"), "--data.text.max_tokens", "3000", "--data.batch_size", "64"]
    small += ["--data.text.corpus.max_characters", "3000", "--data.validation_share", "0.2", "--trainer.max_steps", "2"]
    assert main(["fit", *config, *small, "--run.folder", str(tmp_path / "runs")]) == 0
    names = yaml.safe_load((CONFIGS / "sweep" / f"{overlay}.yaml").read_text())["model"]["init_args"]["members"]
    (run,) = (tmp_path / "runs").glob("*/spec-*/v*")
    assert all(f"{name}/train/fvu" in read_record(run).metrics for name in names)
    assert all(f"\n  {name} " in capsys.readouterr().out for name in list(names)[:1])
