"""The whole way from a fine-tuning to the page of what it changed, on a tiny decoder."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from cli import main
from run_store.record import read_record

pytestmark = pytest.mark.slow


def side(model):
    settings = {"hook_points": ["norm"], "precision": "float32", "store_dtype": "float32", "keep_special_tokens": True}
    return {
        "class_path": "Extractor",
        "init_args": {"model": model, "max_norm_ratio": None, "device": "cpu", **settings},
    }


@pytest.fixture(scope="module")
def job(encoder_runs, tmp_path_factory):
    """Folder of all runs, and the config of a crosscoder between the decoder and what the run tiny made of it."""
    folder = tmp_path_factory.mktemp("diff")
    shutil.copytree(encoder_runs, folder / "runs")
    embedder = yaml.safe_load((encoder_runs.parent / "job.yaml").read_text())
    data = embedder["data"]["init_args"] | {"cache": str(folder / "cache"), "test_share": 0.3}
    (folder / "triplets.yaml").write_text(yaml.safe_dump({"class_path": "TripletDataModule", "init_args": data}))
    base = embedder["model"]["init_args"]["encoder"]["init_args"]["model"]
    settings = {
        "run": {"name": "diff", "folder": str(folder / "runs"), "identity": {"code": False}},
        "model": {
            "class_path": "SparseAutoencoding",
            "init_args": {
                "autoencoder": {
                    "class_path": "BatchTopK",
                    "init_args": {"d_sae": 32, "k": 4, "wiring": {"class_path": "Crosscoder"}},
                }
            },
        },
        "data": {
            "class_path": "ActivationDataModule",
            "init_args": {
                "store": str(folder / "store"),
                "batch_size": 32,
                "validation_share": 0.1,
                "test_share": 0.0,
                "extractor": {
                    "class_path": "JointExtractor",
                    "init_args": {"extractors": {"base": side(base), "tuned": side("run:tiny")}},
                },
                "text": {
                    "class_path": "TextContexts",
                    "init_args": {
                        "corpus": {"class_path": "TripletTexts", "init_args": {"triplets": "triplets.yaml"}},
                        "tokenizer": base,
                        "context_length": 32,
                        "packed": False,
                    },
                },
            },
        },
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "."}},
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [
                {"class_path": "DifferenceReport", "init_args": {"triplets": "triplets.yaml"}},
                {"class_path": "SaveCheckpoints", "init_args": {"every_n_steps": 50}},
            ],
        },
    }
    (folder / "diff.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(folder / "diff.yaml")]) == 0
    return folder


@pytest.fixture
def run(job):
    (folder,) = job.glob("runs/diff/spec-*/v*")
    return folder


def shown(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])


def test_fit_leaves_the_page_in_the_run_and_its_figures_in_the_record(job, run):
    record = read_record(run)
    assert record.status == "complete"
    assert {"diff/shared", "diff/born", "diff/died", "diff/rotated", "diff/ndcg@10_tuned"} <= record.metrics.keys()
    page = (run / "difference.html").read_text(encoding="utf-8")
    assert "<title>run tiny" not in page
    assert "→ run tiny – what fine-tuning changed</title>" in page
    extractor = record.spec["data"]["init_args"]["extractor"]["init_args"]["extractors"]["tuned"]["init_args"]
    assert extractor["model"].startswith(str(job / "runs" / "tiny")), "the identity is that of the weights"
    assert [path.name for path in run.glob("events.out.tfevents.*")]


def test_the_verb_makes_the_same_page_again(job, run, tmp_path, capsys):
    assert main(["diff", "--run", "diff", "--folder", str(job / "runs"), "--out", str(tmp_path / "again.html")]) == 0
    printed = capsys.readouterr().out
    assert "what fine-tuning changed:" in printed
    assert f"open {tmp_path / 'again.html'} in a browser" in printed
    again, before = shown(tmp_path / "again.html"), shown(run / "difference.html")
    for column in ("relative", "cosine", "has", "moved", "density"):
        assert again["live"].pop(column) == pytest.approx(before["live"].pop(column), abs=1e-3)
    assert again["groups"] == [
        {**group, "moved": pytest.approx(group["moved"], abs=1e-3)} for group in before["groups"]
    ]
    assert again["live"] == before["live"]
    assert again["said"] == before["said"]


def test_triplets_of_another_file_are_measured(job, tmp_path, capsys):
    settings = yaml.safe_load((job / "triplets.yaml").read_text())
    settings["init_args"]["test_share"] = 0.6
    (tmp_path / "others.yaml").write_text(yaml.safe_dump(settings))
    more = ["--triplets", str(tmp_path / "others.yaml"), "--out", str(tmp_path / "page.html")]
    assert main(["diff", "--run", "diff", "--folder", str(job / "runs"), *more]) == 0
    assert "held-out queries (test)" in capsys.readouterr().out


def test_a_second_fit_is_skipped_and_one_of_a_newer_encoder_is_another_run(job, run, capsys):
    assert main(["fit", "--config", str(job / "diff.yaml")]) == 0
    assert list(job.glob("runs/diff/spec-*/v*")) == [run]


def test_of_a_sweep_one_member_is_told(job, capsys):
    settings = yaml.safe_load((job / "diff.yaml").read_text())
    settings["run"]["name"] = "sweep"
    crosscoder = settings["model"]["init_args"].pop("autoencoder")
    crosscoders = {name: {"autoencoder": crosscoder} for name in ("few", "many")}
    settings["model"]["init_args"] |= {"autoencoder": crosscoder, "members": crosscoders}
    (job / "sweep.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(job / "sweep.yaml")]) == 0
    asked = ["diff", "--run", "sweep", "--folder", str(job / "runs")]
    assert main(asked) == 2
    assert "name one by --member, of few, many" in capsys.readouterr().err
    assert main([*asked, "--member", "few"]) == 0
    assert "what fine-tuning changed:" in capsys.readouterr().out
    (page,) = job.glob("runs/sweep/spec-*/v*/difference-few.html")
    assert "told by the latents of the crosscoder sweep few" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--run", "tiny"], "tiny trained a text encoder: name the run of a crosscoder"),
        (["--run", "nobody"], "there is no run nobody"),
        (["--run", "diff", "--triplets", "nowhere.yaml"], "triplets nowhere.yaml: data: there is no file nowhere.yaml"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(job, tmp_path, capsys, asked, message):
    assert main(["diff", "--folder", str(job / "runs"), "--out", str(tmp_path / "page.html"), *asked]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert message in line
    assert not (tmp_path / "page.html").exists()
