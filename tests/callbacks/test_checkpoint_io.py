"""Real checkpoints on real disks; kills are real processes."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from safetensors.torch import load_file

from callbacks import AtomicCheckpointIO, SaveOptions
from run_store import UserError
from run_store.checkpoints import newest_valid, read_checkpoint, sweep_leftovers

ROOT = Path(__file__).parents[2]
LATER = SaveOptions({}, asynchronous=True)


def state(step=1, size=1000, fill=0.0):
    weights = OrderedDict({"W_enc": torch.full((size,), fill), "seen": torch.tensor(step)})
    weights._metadata = {"": {"version": 2}}
    moments = {0: {"exp_avg": torch.full((size,), fill)}}
    return {
        "epoch": 2,
        "global_step": step,
        "state_dict": weights,
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": {"d_in": 4, "autoencoder": {"k": 3}},
    }


@pytest.fixture
def io():
    io = AtomicCheckpointIO()
    yield io
    io.teardown()


def test_saves_weights_as_safetensors_and_the_rest_as_plain_values(tmp_path, io):
    path = tmp_path / "deep" / "step-00000007"
    io.save_checkpoint(state(7), path, SaveOptions({"val/fvu": 0.5}))
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "model.safetensors", "state.ckpt"]
    assert set(load_file(path / "model.safetensors")) == {"W_enc", "seen"}
    assert "optimizer_states" in torch.load(path / "state.ckpt", weights_only=True)
    stored = read_checkpoint(path)
    assert (stored.step, stored.epoch, stored.metrics) == (7, 2, {"val/fvu": 0.5})
    loaded = io.load_checkpoint(path)
    assert set(loaded["state_dict"]) == {"W_enc", "seen"}
    assert loaded["state_dict"]._metadata == {"": {"version": 2}}
    assert loaded["hyper_parameters"] == state()["hyper_parameters"]
    assert loaded["optimizer_states"][0]["param_groups"] == [{"lr": 0.1}]
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1  # as the umask has it


@pytest.mark.parametrize("asynchronous", [False, True])
def test_settings_of_the_command_line_in_any_state_do_not_keep_it_from_being_loaded(tmp_path, io, asynchronous):
    kept = {"rows_at_once": PositiveInt(7), "share": [NonNegativeFloat(0.5)], "tie": True}
    io.save_checkpoint({**state(), "memory": kept}, tmp_path / "c", SaveOptions({}, asynchronous))
    loaded = io.load_checkpoint(tmp_path / "c")["memory"]
    assert loaded == {"rows_at_once": 7, "share": [0.5], "tie": True}
    assert loaded["tie"] is True


@pytest.mark.parametrize("asynchronous", [False, True])
def test_tied_transposed_and_overlapping_tensors_and_values_that_are_none_come_back(tmp_path, io, asynchronous):
    whole = torch.arange(12.0).reshape(3, 4)
    weights = {
        "a": whole,
        "tied": whole,
        "transposed": whole.T,
        "row": whole[1],
        "strided": torch.arange(10)[::3],
        "scalar": torch.tensor(True),
        "empty": torch.empty(0, 4),
        "other_empty": torch.empty(0),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "extra_state": {"calls": 3},
    }
    io.save_checkpoint({"state_dict": weights, "global_step": 1}, tmp_path / "c", SaveOptions({}, asynchronous))
    loaded = io.load_checkpoint(tmp_path / "c")["state_dict"]
    assert loaded["tied"] is loaded["a"]
    assert loaded["extra_state"] == {"calls": 3}
    for name, tensor in weights.items():
        if isinstance(tensor, torch.Tensor):
            assert loaded[name].dtype == tensor.dtype
            assert torch.equal(loaded[name], tensor), name


def test_what_training_changes_during_an_asynchronous_save_is_not_saved(tmp_path, io):
    """Several saves, each into the memory of the one before, while the state goes on changing."""
    checkpoint = state(size=300_000)
    steps = checkpoint["hyper_parameters"]["steps"] = []
    for step in range(1, 6):
        checkpoint["state_dict"]["W_enc"].fill_(step)
        checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].fill_(step)
        steps.append(step)
        io.save_checkpoint({**checkpoint, "global_step": step}, tmp_path / f"step-{step:08d}", LATER)
        checkpoint["state_dict"]["W_enc"].fill_(-1)
        checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].fill_(-1)
        steps.append(-1)
    for step in range(1, 6):
        loaded = io.load_checkpoint(tmp_path / f"step-{step:08d}")
        assert (loaded["state_dict"]["W_enc"] == step).all()
        assert (loaded["optimizer_states"][0]["state"][0]["exp_avg"] == step).all()
        assert loaded["hyper_parameters"]["steps"][-1] == step


def test_one_asynchronous_save_is_under_way_at_a_time_and_a_load_waits_for_it(tmp_path, io):
    writers = []
    for step in (1, 2, 3):
        io.save_checkpoint(state(step, 500_000, step), tmp_path / f"step-{step:08d}", LATER)
        writers += [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")]
        assert len(list(tmp_path.glob("*.partial"))) <= 1
        assert step == 1 or (tmp_path / f"step-{step - 1:08d}").is_dir()
    assert set(writers) == {"checkpoint_0"}
    assert (io.load_checkpoint(tmp_path / "step-00000003")["state_dict"]["W_enc"] == 3).all()
    assert io.writing is None


def test_an_error_of_an_asynchronous_save_is_raised_at_the_next_save_once(tmp_path, io):
    (tmp_path / "file").write_text("no folder")
    io.save_checkpoint(state(), tmp_path / "file" / "step-00000001", LATER)
    with pytest.raises(UserError, match="step-00000001 cannot be written"):
        io.save_checkpoint(state(2), tmp_path / "step-00000002", LATER)
    io.save_checkpoint(state(2), tmp_path / "step-00000002", LATER)
    io.drain()
    assert newest_valid(tmp_path).checkpoint.step == 2


def test_an_error_of_the_last_asynchronous_save_is_raised_at_the_end(tmp_path):
    io = AtomicCheckpointIO()
    (tmp_path / "file").write_text("no folder")
    io.save_checkpoint(state(), tmp_path / "file" / "step-00000001", LATER)
    with pytest.raises(UserError, match="cannot be written"):
        io.teardown()


PROCESS = """
import sys, torch
from callbacks import AtomicCheckpointIO, SaveOptions
io = AtomicCheckpointIO()
for step in range(1, int(sys.argv[2]) + 1):
    weights = {"W": torch.full((int(sys.argv[3]),), float(step))}
    io.save_checkpoint({"global_step": step, "state_dict": weights}, f"{sys.argv[1]}/step-{step:08d}",
                       SaveOptions({}, True))
    print(step, flush=True)
"""


def start(folder, saves, size, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder), str(saves), str(size)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_process_that_ends_waits_for_the_save_under_way(tmp_path):
    process = start(tmp_path, 1, 2_000_000)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert newest_valid(tmp_path).checkpoint.step == 1


@pytest.mark.slow
def test_a_kill_inside_an_asynchronous_save_leaves_the_older_checkpoint_wherever_tmpdir_is(tmp_path):
    elsewhere = Path("/dev/shm")  # another file system, through which nothing must go
    process = start(tmp_path, 1000, 3_000_000, TMPDIR=str(elsewhere if elsewhere.is_dir() else tmp_path))
    for line in process.stdout:
        if int(line) == 3:  # the second is whole and the third under way
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    sweep_leftovers(tmp_path)
    found = newest_valid(tmp_path)
    assert found.checkpoint.step >= 2
    assert not found.damaged
    weights = AtomicCheckpointIO().load_checkpoint(found.checkpoint.path)["state_dict"]["W"]
    assert (weights == found.checkpoint.step).all()
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_one_sentence_with_both_numbers_and_keeps_the_old_checkpoint(small_disk, io):
    io.save_checkpoint(state(1), small_disk / "step-00000001")
    with pytest.raises(UserError, match=r"step-00000002 needs 801 kB and its disk has [\d.]+ kB free"):
        io.save_checkpoint(state(2, 100_000), small_disk / "step-00000002")
    assert (io.load_checkpoint(small_disk / "step-00000001")["state_dict"]["W_enc"] == 0).all()
    assert [file.name for file in small_disk.iterdir()] == ["step-00000001"]
    del io
    gc.collect()  # the loaded weights map the disk that is about to go


@pytest.mark.parametrize("name", ["model.safetensors", "state.ckpt"])
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_file_is_one_sentence_before_anything_is_used(tmp_path, io, name, how):
    io.save_checkpoint(state(), tmp_path / "step-00000001")
    file = tmp_path / "step-00000001" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if how == "flipped" else content[:-100])
    with pytest.raises(UserError, match=rf"step-00000001 is damaged \(.*{name}"):
        io.load_checkpoint(tmp_path / "step-00000001")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, io):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "last.ckpt"
    path.write_bytes(pickle.dumps({"weights": Attack()}))
    with pytest.raises(UserError, match="damaged or not one of ours"):
        io.load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_a_missing_checkpoint_is_named(tmp_path, io):
    with pytest.raises(UserError, match=r"no checkpoint .*gone"):
        io.load_checkpoint(tmp_path / "gone")


def test_a_removed_checkpoint_goes_as_a_whole(tmp_path, io):
    io.save_checkpoint(state(), tmp_path / "step-00000001", LATER)
    io.remove_checkpoint(tmp_path / "step-00000001")
    assert list(tmp_path.iterdir()) == []
