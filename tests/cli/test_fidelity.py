"""`fidelity` on the command line, from a tiny run to its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cli import main
from run_store.record import read_record
from tests.callbacks.small_models import LENGTH, save_bert

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Folder of a finished run `final`, of a BERT, and of triplets."""
    folder = tmp_path_factory.mktemp("fidelity")
    model = save_bert(folder / "bert")
    text = {"corpus": {"class_path": "StandardLibrary", "init_args": {"max_characters": 1500}}, "tokenizer": model}
    extractor = {"model": model, "hook_points": ["encoder.layer.1"], "keep_special_tokens": True}
    config = {
        "run": {"name": "final", "folder": str(folder / "runs")},
        "model": {
            "class_path": "SparseAutoencoding",
            "init_args": {"autoencoder": {"class_path": "TopK", "init_args": {"d_sae": 48, "k": 6}}},
        },
        "data": {
            "class_path": "ActivationDataModule",
            "init_args": {
                "store": str(folder / "store"),
                "batch_size": 128,
                "validation_share": 0.2,
                "test_share": 0.1,
                "extractor": {"class_path": "Extractor", "init_args": extractor},
                "text": {
                    "class_path": "TextContexts",
                    "init_args": {**text, "context_length": LENGTH, "max_tokens": 6000},
                },
            },
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "num_sanity_val_steps": 0,
            "callbacks": [{"class_path": "SaveCheckpoints", "init_args": {"every_n_steps": 100}}],
        },
    }
    (folder / "sae.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(folder / "sae.yaml")]) == 0
    rows = [{"anchor": f"gives {i}", "positive": f"def f{i}(): {i}"} for i in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"files": str(folder / "rows.jsonl"), "columns": {"negatives": []}}
    triplets = {
        "class_path": "TripletDataModule",
        "init_args": {
            "source": {"class_path": "TripletFiles", "init_args": source},
            "test_share": 0.3,
            "mining": {"count": 1},
            "cache": str(folder / "cache"),
        },
    }
    (folder / "triplets.yaml").write_text(yaml.safe_dump(triplets))
    return folder


@pytest.mark.slow
def test_a_run_and_triplets_give_two_tables(job, capsys):
    asked = ["--run", "final", "--folder", str(job / "runs"), "--triplets", str(job / "triplets.yaml")]
    asked += ["--max_length", "32"]
    capsys.readouterr()
    assert main(["fidelity", *asked, "--json", "--latents", "2", "4"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["documents"] >= figures["queries"] > 5
    assert 0 < figures["fvu"] < 1
    assert figures["embedding_cosine"] > 0.5
    names = [row["index"] for row in figures["indices"]]
    assert names[2:5] == ["2 latents, norm", "4 latents, norm", "all latents, norm"]
    assert len(names) == 8

    assert main(["fidelity", *asked, "--weighting", "idf", "--cache", str(job / "other")]) == 0
    page = capsys.readouterr().out
    assert "NDCG@10 recovered" in page
    assert "128 latents, idf" in page
    assert "latents, norm" not in page
    assert (job / "other").is_dir()

    # one document: nothing can be lost or recovered
    rows = [{"anchor": f"gives {i}", "positive": "def f(): 1"} for i in range(30)]
    (job / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (job / "one.yaml").write_text((job / "triplets.yaml").read_text().replace("rows.jsonl", "one.jsonl"))
    single = [*asked[:4], "--triplets", str(job / "one.yaml"), "--latents", "2", "--json"]
    assert main(["fidelity", *single]) == 0
    figures = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (figures["documents"], figures["ndcg@10_recovered"]) == (1, None)

    def refused(*arguments):
        assert main(["fidelity", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "triplets nowhere.yaml" in refused(*asked[:4], "--triplets", "nowhere.yaml")
    assert "max_length 4000 exceeds" in refused(*asked[:-1], "4000")
    assert "--triplets VALUE" in refused(*asked[:4])


@pytest.mark.slow
def test_the_overlays_find_the_run_among_those_of_the_embedder(job):
    """The general texts are those that come with every Python, and the autoencoder is named alone."""
    command = ["fit"]
    for name in ("embedder", "forgetting", "guided_negatives"):
        command += ["--config", str(CONFIGS / f"{name}.yaml")]
    settings = {
        "run.folder": job / "runs",
        "model.encoder.model": job / "bert",
        "model.encoder.max_length": 32,
        "data": job / "triplets.yaml",
        "data.batch_size": 8,
        "data.validation_share": 0.2,
        "data.mining": "{count: 1, last_rank: 9, most_overlap: 0.9, max_share: 1.0}",
    }
    assert main([*command, *(f"--{name}={value}" for name, value in settings.items())]) == 0
    (run,) = (job / "runs" / "embedder").glob("spec-*/v*")
    metrics = read_record(run).metrics
    assert metrics["forgetting/drift"] > 0
    assert metrics["forgetting/cosine"] < 1
