"""`export` of a fine-tuned text encoder, from a tiny run to the same embeddings."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from backbones import TextEncoder
from cli import main
from exports import find_trained, load_encoder
from run_store.record import read_record
from tests.cli.encoder_job import PROMPTS
from tests.exports.encoders import TEXTS, ours
from tests.exports.hub_server import OWNER


@pytest.fixture
def runs(encoder_runs):
    return encoder_runs


@pytest.fixture
def run(runs):
    (folder,) = runs.glob("*/spec-*/v*")
    return folder


def exported(run, output, *more):
    return main(["export", "--run", str(run), "--output", str(output), *more])


def test_what_is_exported_computes_what_was_trained(run, tmp_path, capsys):
    assert exported(run, tmp_path / "files", "--format", "sentence-transformers") == 0
    told = capsys.readouterr().out
    assert f'SentenceTransformer("{tmp_path / "files"}")' in told
    written = json.loads((tmp_path / "files" / "config_sentence_transformers.json").read_text())
    assert written["prompts"] == {"query": "find: ", "document": "code: "}
    encoder = load_encoder(find_trained(str(run)))
    again = TextEncoder(str(tmp_path / "files"), precision="float32", prompts=PROMPTS)
    again.build()
    expected = ours(encoder, TEXTS, "anchor")
    torch.testing.assert_close(ours(again.eval(), TEXTS, "anchor"), expected, rtol=1e-4, atol=1e-5)
    untrained = TextEncoder(encoder.model, pooling="last_token", max_length=32, precision="float32", prompts=PROMPTS)
    untrained.build()
    assert not torch.allclose(ours(untrained.eval(), TEXTS, "anchor"), expected, atol=1e-2)


def test_the_card_tells_data_loss_and_scores_before_and_after(run, tmp_path):
    assert exported(run, tmp_path / "files", "--format", "sentence-transformers") == 0
    assert json.loads((tmp_path / "files" / "lineage.json").read_text())["run"] == read_record(run).id
    card = (tmp_path / "files" / "README.md").read_text()
    record = read_record(run)
    (scores,) = (line.split("|") for line in card.splitlines() if line.startswith("| val/ndcg@10 "))
    before, after = float(scores[2]), float(scores[3])
    assert after == pytest.approx(record.metrics["val/ndcg@10"], rel=1e-5)
    assert 0 < before < 1
    sha256 = record.spec["data"]["init_args"]["source"]["sha256"]
    data = ("| class | TripletDataModule |", "| source | TripletFiles |", f"| sha256.source | {sha256} |")
    for text in (*data, "rows.jsonl", "| class | InfoNCE |", record.id):
        assert text in card
    assert "lr: 0.01" in card


def test_it_is_pushed_with_a_card_that_hubs_can_file(run, tmp_path, capsys, hub):
    push = ["--push-to-hub", f"{OWNER}/embedder"]
    assert exported(run, tmp_path / "files", "--format", "sentence-transformers", *push) == 0
    assert f"pushed to {hub.url}/{OWNER}/embedder\n" in capsys.readouterr().out
    ((_, pushed),) = hub.commits[f"{OWNER}/embedder@main"]
    assert "1_Pooling/config.json" in pushed
    head = yaml.safe_load(pushed["README.md"].decode().split("---")[1])
    assert head["library_name"] == "sentence-transformers"
    assert head["pipeline_tag"] == "sentence-similarity"
    assert "base_model" not in head, "it is a folder of this machine"


@pytest.mark.slow
def test_as_onnx(run, tmp_path):
    assert exported(run, tmp_path / "files", "--format", "onnx") == 0
    settings = json.loads((tmp_path / "files" / "embedding.json").read_text())
    assert settings["prompts"] == {"query": "find: ", "document": "code: "}


def test_the_best_checkpoint_is_the_one_with_the_highest_ndcg(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    (run,) = (tmp_path / "runs").glob("*/spec-*/v*")
    folders = sorted((run / "checkpoints").iterdir())
    for folder, value in zip(folders, [0.1, 0.9, 0.3], strict=False):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"metrics": {"val/ndcg@10": value}}))
    record = json.loads((run / "metadata.json").read_text())
    record["outputs"] = [output for output in record["outputs"] if not output["name"].endswith("manifest.json")]
    (run / "metadata.json").write_text(json.dumps(record))
    assert exported(run, tmp_path / "files", "--format", "sentence-transformers", "--checkpoint", "best") == 0
    assert str(folders[1]) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "saelens"], "format saelens is not for a text encoder, which this is: choose sentence-trans"),
        (["--format", "onnx", "--member", "a"], "there is no member 'a', since a text encoder has none"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_in_one_sentence(run, tmp_path, capsys, more, message):
    assert exported(run, tmp_path / "files", *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "files").exists()
