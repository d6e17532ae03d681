"""`explain` on the command line: a tiny embedder, an autoencoder on its last states, and what is said of rankings."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from cli import main
from tests.cli.jobs import ROOT
from tests.cli.test_export import JOB
from tests.explanations.readers import LAST, WORDS, save_embedder

DOCUMENTS = ["open and close a file", "sort the list", "read the text of a file", "join a name and a path"]


def fitted(folder, name, extractor, autoencoder):
    """The folder of a finished run on the states of embedders."""
    job = json.loads(json.dumps(JOB))
    text = folder / "corpus.txt"
    text.write_text("\n".join(" ".join(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(12)) for i in range(60)))
    job["run"] |= {"name": name, "folder": str(folder / "runs")}
    job["model"]["init_args"]["autoencoder"] = autoencoder
    job["data"]["init_args"] |= {
        "store": str(folder / f"{name}-store"),
        "extractor": extractor,
        "text": {
            "class_path": "TextContexts",
            "init_args": {
                "corpus": {"class_path": "TextFiles", "init_args": {"files": [str(text)], "sample_by": "line"}},
                "tokenizer": str(folder / "base"),
                "context_length": 16,
            },
        },
    }
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(job))
    assert main(["fit", "--config", str(config)]) == 0
    (run,) = (folder / "runs" / name).glob("spec-*/v*")
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    save_embedder(folder / "base")
    save_embedder(folder / "tuned", seed=1)
    (folder / "documents.txt").write_text("\n".join(DOCUMENTS) + "\n\n")
    return folder


def reads(model):
    return {"class_path": "Extractor", "init_args": {"model": str(model), "hook_points": [LAST]}}


@pytest.fixture(scope="module")
def run(folder):
    return fitted(folder, "one", reads(folder / "base"), {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 4}})


def explained(capsys, run, *more, query="open the file"):
    capsys.readouterr()
    code = main(["explain", "--run", str(run), "--query", query, *map(str, more)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["explain", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_ranking_is_told_in_text_json_and_a_page(run, folder, capsys):
    file, page = folder / "documents.txt", folder / "page.html"
    text = explained(capsys, run, "--documents", file, "--versus", 1, 2, "--out", page)
    assert "query: open the file" in text
    assert "documents.txt:3" in text
    assert "latents of both:" in text
    assert "why #1 and not #2" in text
    assert re.search(r"diagonal \+ cross \+ residual = cosine to within \de-1\d", text)
    assert "open the file" in page.read_text()
    # what was learnt of labels is kept, and a second reading says the same
    (kept,) = (run / "latent_labels").iterdir()
    assert len(json.loads(kept.read_text())["labels"]) == 32
    assert explained(capsys, run, "--documents", file, "--versus", 1, 2, "--out", page) == text
    told = json.loads(explained(capsys, run, "--documents", file, "--json"))
    assert [document["rank"] for document in told["documents"]] == [1, 2, 3, 4]
    for one in told["documents"]:
        assert abs(one["diagonal"] + one["cross"] + one["bias"] + one["error"] - one["cosine"]) < 1e-6


@pytest.mark.slow
def test_documents_come_from_rows_and_from_the_command_line(run, folder, capsys):
    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "open a file"}\n\n{"document": "sort: {the} list"}\n{"positive": "[1, 2]"}\n')
    text = explained(
        capsys, run, "--documents", rows, folder / "documents.txt", "--document", "a: b", "--document", "7"
    )
    for source in ("rows.jsonl:3", "rows.jsonl:4", "documents.txt:1", "--document 1", "--document 2"):
        assert source in text


@pytest.mark.slow
def test_a_clamp_shows_the_ranking_before_and_after(run, folder, capsys):
    told = json.loads(explained(capsys, run, "--documents", folder / "documents.txt", "--json"))
    latent = told["documents"][0]["shared"][0]["latent"]
    arguments = ("--documents", folder / "documents.txt", "--clamp", f"{latent}=0")
    text = explained(capsys, run, *arguments)
    assert f"clamp: {latent} " in text
    assert "before" in text
    clamped = json.loads(explained(capsys, run, *arguments, "--json"))
    before = {one["number"]: one["cosine"] for one in told["documents"]}
    for one in clamped["documents"]:
        assert abs(one["before"][1] - before[one["number"]]) < 1e-9
        assert latent not in [part["latent"] for part in one["shared"]]


def test_what_cannot_be_explained_is_one_sentence(run, folder, tmp_path, capsys):
    file = folder / "documents.txt"
    asked = ("--run", run, "--query", "open")
    assert "name a file with some by --documents FILE" in refused(capsys, *asked)
    assert "cannot be read (No such file" in refused(capsys, *asked, "--documents", tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "empty.txt has no document" in refused(capsys, *asked, "--documents", tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "is not UTF-8 (byte 3)" in refused(capsys, *asked, "--documents", tmp_path / "latin.txt")
    for line, reason in (("{", "is no JSON"), ('{"other": "x"}', "has no text under"), ('["x"]', "has no text under")):
        (tmp_path / "bad.jsonl").write_text('{"text": "open"}\n' + line)
        assert f"bad.jsonl:2 {reason}" in refused(capsys, *asked, "--documents", tmp_path / "bad.jsonl")
    assert "'12' is not LATENT=VALUE" in refused(capsys, *asked, "--documents", file, "--clamp", "12")
    assert "'1=nan' is not LATENT=VALUE" in refused(capsys, *asked, "--documents", file, "--clamp", "1=nan")
    assert "there is no latent 99" in refused(capsys, *asked, "--documents", file, "--clamp", "99=1")
    assert "two different documents" in refused(capsys, *asked, "--documents", file, "--versus", 1, 1)
    assert "there is no document 9" in refused(capsys, *asked, "--documents", file, "--versus", 1, 9)
    assert "query is empty" in refused(capsys, "--run", run, "--query", " ", "--documents", file)
    assert "side 'tuned' is not there" in refused(capsys, *asked, "--documents", file, "--side", "tuned")
    assert "there is no run nobody" in refused(
        capsys, "--run", "nobody", "--query", "x", "--documents", file, "--folder", tmp_path
    )


@pytest.mark.slow
def test_a_crosscoder_tells_of_the_tuned_model_beside_the_base(folder, capsys):
    extractors = {"base": reads(folder / "base")["init_args"], "tuned": reads(folder / "tuned")["init_args"]}
    joint = {"class_path": "JointExtractor", "init_args": {"extractors": extractors}}
    wired = {"d_sae": 32, "k": 4, "wiring": {"class_path": "Crosscoder"}}
    run = fitted(folder, "two", joint, {"class_path": "BatchTopK", "init_args": wired})
    text = explained(capsys, run, "--documents", folder / "documents.txt")
    assert f"model: tuned/{LAST}" in text
    assert "base" in text.splitlines()[4]
    tuned = json.loads(explained(capsys, run, "--documents", folder / "documents.txt", "--json"))
    base = json.loads(explained(capsys, run, "--documents", folder / "documents.txt", "--json", "--side", "base"))
    cosines = {one["number"]: one["cosine"] for one in base["documents"]}
    for one in tuned["documents"]:
        assert abs(one["base"][1] - cosines[one["number"]]) < 1e-9


@pytest.mark.slow
def test_another_layer_is_refused_and_the_right_one_named(folder, capsys):
    wrong = {"class_path": "Extractor", "init_args": {"model": str(folder / "base"), "hook_points": ["residual.1"]}}
    run = fitted(folder, "wrong", wrong, {"class_path": "TopK", "init_args": {"d_sae": 32, "k": 4}})
    line = refused(capsys, "--run", run, "--query", "x", "--documents", folder / "documents.txt")
    assert f"train the autoencoder on {LAST}" in line


@pytest.mark.slow
def test_it_runs_as_a_program(run, folder):
    command = [sys.executable, "main.py", "explain", "--run", run, "--query", "open", "--documents"]
    done = subprocess.run(
        [*map(str, command), str(folder / "documents.txt")], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "latents of both:" in done.stdout
    assert done.stderr == ""
