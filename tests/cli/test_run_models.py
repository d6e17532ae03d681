"""`model: run:NAME`: the encoder that a run has trained, as a model of another job."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace
from safetensors.torch import load_file

from backbones import TextEncoder
from cli import main
from cli.resolving import answer
from cli.run_models import settle_models
from exports import find_trained, load_encoder
from exports.run_encoders import encoder_folder
from run_store import UserError
from run_store.checkpoints import list_checkpoints
from run_store.record import read_record
from tests.cli.encoder_job import PROMPTS
from tests.cli.jobs import ROOT
from tests.exports.encoders import TEXTS, ours


@pytest.fixture
def root(encoder_runs, tmp_path):
    """All runs, to be spoilt."""
    shutil.copytree(encoder_runs, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def run(root):
    (folder,) = root.glob("*/spec-*/v*")
    return folder


def another(run, status, number=2):
    """A newer run of the same name."""
    folder = run.with_name(f"v{number}")
    shutil.copytree(run, folder)
    record = json.loads((folder / "metadata.json").read_text())
    record |= {
        "id": f"{number}{record['id'][1:]}",
        "created": f"{2900 + number}-01-01T00:00:00+00:00",
        "status": status,
    }
    (folder / "metadata.json").write_text(json.dumps(record))
    return folder


def test_it_is_the_trained_encoder_with_its_adapters_merged(root, run):
    folder = encoder_folder("run:tiny", str(root))
    assert folder.parent == run / "encoder"
    again = TextEncoder(str(folder), precision="float32", prompts=PROMPTS)
    again.build()
    assert (again.pooling, again.max_length) == ("last_token", 32)
    best = run / "checkpoints" / folder.name.rpartition("-")[0]
    expected = ours(load_encoder(find_trained(str(best))), TEXTS, "anchor")
    torch.testing.assert_close(ours(again.eval(), TEXTS, "anchor"), expected, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))


def test_it_is_written_once_and_found_by_name_id_and_folder(root, run):
    folder = encoder_folder("run:tiny", str(root))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for wanted in ("tiny", read_record(run).id, str(run)):
        assert encoder_folder(f"run:{wanted}", str(root)) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_newest_complete_run_of_a_name_is_meant(root, run):
    newer = another(run, "complete")
    another(run, "running", 3)
    assert encoder_folder("run:tiny", str(root)).is_relative_to(newer)


def test_the_best_checkpoint_is_meant_and_other_weights_are_another_folder(root, run):
    first, *_ = found = list_checkpoints(run / "checkpoints")
    for checkpoint, value in zip(found, [0.9, 0.1, 0.1], strict=False):
        manifest = json.loads((checkpoint.path / "manifest.json").read_text())
        (checkpoint.path / "manifest.json").write_text(json.dumps(manifest | {"metrics": {"val/ndcg@10": value}}))
    record = json.loads((run / "metadata.json").read_text())
    record["outputs"] = [output for output in record["outputs"] if not output["name"].endswith("manifest.json")]
    (run / "metadata.json").write_text(json.dumps(record))
    sha256 = first.files["model.safetensors"].sha256
    assert encoder_folder("run:tiny", str(root)).name == f"{first.path.name}-{sha256[:8]}"


def refusal(model, root):
    with pytest.raises(UserError) as caught:
        encoder_folder(model, str(root))
    assert str(caught.value).count(". ") == 0
    return str(caught.value)


def test_what_cannot_be_had_is_said_in_one_sentence(root, run):
    assert "there is no run nobody in" in refusal("run:nobody", root)
    assert "names no run: write run:NAME" in refusal("run:", root)
    best = max(list_checkpoints(run / "checkpoints"), key=lambda checkpoint: checkpoint.metrics["val/ndcg@10"])
    weights = best.path / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    said = refusal("run:tiny", root)
    assert f"means the checkpoint {best.path}, which is damaged (model.safetensors differs" in said
    assert not (run / "encoder").exists()
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint in" in refusal("run:tiny", root)


def test_a_run_that_is_not_complete_is_refused_with_what_finishes_it(root, run):
    record = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps(record | {"status": "paused"}))
    assert f"{run} is paused: finish it by python main.py runs resume {run}" in refusal("run:tiny", root)


def test_a_run_that_trained_no_encoder_is_refused(root):
    config = str(ROOT / "configs" / "synthetic.yaml")
    small = ["--data.train_rows", "2048", "--model.autoencoder.d_sae", "16", "--model.autoencoder.k", "2"]
    quick = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0", "--trainer.logger", "false"]
    assert main(["fit", "--config", config, "--run.folder", str(root), *small, *quick]) == 0
    assert "which trained no text encoder: name a run of ContrastiveEmbedding" in refusal("run:synthetic", root)


def test_settings_are_given_the_folder_wherever_they_stand(root, run):
    extractors = {"base": Namespace(init_args=Namespace(model="some/base"))}
    extractors["tuned"] = Namespace(init_args=Namespace(model="run:tiny"))
    settings = Namespace(data=Namespace(extractors=extractors, parts=[{"tokenizer": "run:tiny"}]), name="run:tiny")
    settle_models(settings, str(root))
    folder = str(encoder_folder("run:tiny", str(root)))
    assert extractors["tuned"].init_args.model == folder
    assert extractors["base"].init_args.model == "some/base"
    assert settings.data.parts == [{"tokenizer": folder}]
    assert settings.name == "run:tiny"


def test_it_is_settled_before_the_identity_of_a_run_is_taken(encoder_runs, root, run):
    more = [
        "--config",
        str(encoder_runs.parent / "job.yaml"),
        "--run.folder",
        str(root),
        "--model.encoder.model",
        "run:tiny",
    ]
    first, again = answer(more), answer(more)
    assert first["config"]["model"]["init_args"]["encoder"]["init_args"]["model"] == str(
        encoder_folder("run:tiny", str(root))
    )
    assert first["identity"] == again["identity"]
    another(run, "complete")
    assert answer(more)["identity"] != first["identity"]
    assert "there is no run nobody" in answer([*more[:-1], "run:nobody"])["error"]


@pytest.mark.slow
def test_two_processes_that_ask_at_once_find_the_same_folder(root, run):
    ask = f"from exports.run_encoders import encoder_folder; print(encoder_folder('run:tiny', {str(root)!r}))"
    both = [
        subprocess.Popen([sys.executable, "-c", ask], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in both]
    assert told[0] == told[1]
    assert [path.name for path in (run / "encoder").iterdir()] == [Path(told[0].strip()).name]
