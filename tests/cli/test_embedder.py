"""The embedder's own config, on a few functions of the standard library and a tiny model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli import main
from run_store.record import read_record
from tests.cli.jobs import differing
from tests.exports.encoders import save_qwen

CONFIG = Path(__file__).parents[2] / "configs" / "embedder.yaml"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """arguments(verb, *more): the command line of a tiny job."""
    folder = tmp_path_factory.mktemp("embedder")
    rows = [
        {"anchor": f"gives number {i}", "positive": f"def f{i}(): return {i}", "negative": f"def g{i}(): pass {i}"}
        for i in range(120)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = save_qwen(folder / "qwen")

    def arguments(verb, *more):
        return [
            verb,
            *("--config", str(CONFIG)),
            *("--model.encoder.model", model),
            *("--model.encoder.pooling", "last_token"),
            *("--model.encoder.max_length", "32"),
            *("--model.encoder.precision", "float32"),
            *("--data.source", "TripletFiles"),
            *("--data.source.files", str(folder / "rows.jsonl")),
            *("--data.batch_size", "8"),
            *("--data.cache", str(folder / "cache")),
            *("--run.folder", str(folder / "runs")),
            *("--run.identity.code", "false"),
            *more,
        ]

    return arguments


@pytest.mark.slow
def test_it_is_previewed_trained_measured_and_not_trained_twice(arguments, capsys):
    space = ("--model.score_spaces", '{"short": {"class_path": "Cosine", "init_args": {"dimensions": 4}}}')
    assert main(arguments("fit", *space, "--run.name", "spaces")) == 0
    table = capsys.readouterr().out
    assert re.search(r"^  NDCG@10 +0\.\d{4} +0\.\d{4}$", table, re.MULTILINE)
    assert re.search(r"^  NDCG@10, short +0\.\d{4} +0\.\d{4}$", table, re.MULTILINE)
    assert main(arguments("fit")) == 0
    told = capsys.readouterr().out
    for line in ("examples to train on", "already satisfied", "predicted speed", "before", "run folder"):
        assert line in told
    assert main(arguments("validate")) == 0
    assert main(arguments("fit")) == 0
    assert "is complete" in capsys.readouterr().out


def test_what_is_left_of_the_run(arguments, capsys):
    assert main(arguments("fit", "--run.mode", "force_new", "--model.gradient_cache", "true")) == 0
    out = capsys.readouterr().out
    run = Path(out.split("run folder")[1].split()[0])
    assert read_record(run).status == "complete"
    assert json.loads((run / "triplets.json").read_text())["examples"] > 0
    (best,) = {path.name for path in (run / "checkpoints").iterdir() if path.is_dir()}
    assert best.startswith("step-")
    events = EventAccumulator(str(run)).Reload()
    curve = events.Scalars("val/ndcg@10")
    assert curve[0].step == 0
    assert len(curve) == 2
    assert list(run.glob("**/projector_config.pbtxt"))


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--model.encoder.max_length", "100000"), "max_length"),
        (("--model.loss.margin", "3"), "margin"),
        (("--data.source.files", "nowhere/*.jsonl"), "nowhere"),
        (("--data.mining", '{"first_rank": 5, "last_rank": 5}'), "last_rank"),
        (("--model.encoder.model", "./nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(arguments, capsys, more, sentence):
    loss = ("--model.loss", "Triplet") if "margin" in more[0] else ()
    assert main(arguments("fit", *loss, *more)) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert sentence in told


@pytest.mark.slow
def test_killed_from_outside_it_goes_on_to_the_same_bits(arguments, tmp_path):
    def line(runs):
        settings = ("--trainer.max_epochs=3", "--trainer.callbacks.every_n_steps=2")
        return arguments("fit", "--run.folder", str(tmp_path / runs), *settings)

    def step_saved():
        folders = (tmp_path / "killed").glob("*/*/v1/checkpoints/step-????????")
        return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)

    for kills in (1, 2):
        process = subprocess.Popen([sys.executable, str(CONFIG.parents[1] / "main.py"), *line("killed")])
        while step_saved() < 8 * kills and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert main(line("killed")) == 0
    assert main(line("straight")) == 0
    killed, straight = (next((tmp_path / runs).glob("*/*/v1")) for runs in ("killed", "straight"))
    assert len(read_record(killed).attempts) == 3
    assert differing(killed, straight) == []
