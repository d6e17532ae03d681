"""Trainings that go on with another number of processes than they were saved with."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from callbacks import AtomicCheckpointIO, RandomStates, SaveCheckpoints
from datamodules.activations import ActivationDataModule
from datamodules.shards import BlockShuffle, Rank, TrainingLoader
from datamodules.synthetic import EndlessOrder, FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from datamodules.triplets.loaders import TripletLoader
from lightning_modules.autoencoders import BatchTopK, JumpReLU, PAnneal
from lightning_modules.checkpoint_files import read_model
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.checkpoints import list_checkpoints
from tests.cli.jobs import ROOT, final_state
from tests.distributed.ranks import free_port, on_ranks
from tests.distributed.steps import TOLERANCE, assert_same_values, trained

# ---- the cursor


class Numbers:
    """Rows that are their own numbers."""

    def read(self, rows, hook_points):
        return (rows[:, None].float(),)


def stored(members, batch, block, rank):
    order = BlockShuffle(torch.tensor([[3, 3 + members]]), block, seed=1)
    return TrainingLoader(Numbers(), order, ["layer"], batch, rank)


def endless(members, batch, block, rank):
    return TrainingLoader(Numbers(), EndlessOrder(5, members, seed=1), ["layer"], batch, rank)


def triplets(members, batch, block, rank):
    return TripletLoader(lambda rows: rows, torch.arange(members), batch, 1, lambda epoch: None, rank)


def rows_of(batch):
    return (batch.rows if hasattr(batch, "rows") else batch).tolist()


@pytest.mark.parametrize("make", [stored, endless, triplets])
@settings(max_examples=40)
@given(
    members=st.integers(12, 150),
    multiple=st.integers(1, 3),
    block=st.integers(1, 9),
    parts=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 9)), min_size=1, max_size=6),
)
def test_epochs_are_those_of_one_process_however_often_the_number_of_ranks_changes(
    make, members, multiple, block, parts
):
    """Batches are read by some ranks, of which the state of the first goes to as many others, and so on."""
    batch = 12 * multiple
    if batch > members:
        return
    state, read = None, []
    for ranks, batches in parts:
        loaders = [make(members, batch, block, Rank(rank, ranks)) for rank in range(ranks)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(state)
        for done, together in enumerate(zip(*(forever(loader) for loader in loaders), strict=True)):
            if done == batches:
                break
            assert {len(rows) for rows in together} == {batch // ranks}
            read.append(sorted(chain(*together)))
            state = loaders[0].state_dict()
            assert all(loader.state_dict() == state for loader in loaders)
    alone = forever(make(members, batch, block, Rank()))
    assert read == [sorted(rows) for rows, _ in zip(alone, read, strict=False)]
    length = members // batch
    for first in range(0, len(read), length):
        rows = list(chain(*read[first : first + length]))
        assert len(rows) == len({*rows})


def forever(loader):
    """The rows of one epoch after another, begun as Lightning does, after a look at where the loader stands."""
    epoch = loader.epoch + (loader.batch == len(loader))
    while True:
        loader.set_epoch(epoch)
        for batch in loader:
            yield rows_of(batch)
        epoch += 1


# ---- trainings


def synthetic():
    features = FeatureSettings(12, 32, mean_l0=3.0)
    return SyntheticActivations(features, batch_size=32, train_rows=7 * 32 + 5, validation_rows=101)


def autoencoders():
    def optimizer(groups):
        # an eps that rounding does not reach, where a gradient is nothing else
        return torch.optim.Adam(groups, lr=3e-3, eps=1e-3)

    settings = {"optimizer": optimizer, "sample_rows": 200, "dead_after_tokens": 100, "sparsity_warmup": 6.0}
    members = {
        "batch": Member(BatchTopK(64, 3)),
        "steered": Member(JumpReLU(64, 0.1, target_l0=4.0)),
        "annealed": Member(PAnneal(64, 0.1, stages=4, start=0.1, end=0.9)),
    }
    return SparseAutoencoding(BatchTopK(64, 3), members=members, **settings)


def saving(folder):
    return {
        "default_root_dir": folder,
        "plugins": [AtomicCheckpointIO()],
        "enable_checkpointing": True,
        "steps": 17,
        "val_check_interval": 17,
    }


@pytest.mark.slow
@pytest.mark.parametrize("make_data", ["stored", "synthetic"])
def test_what_two_processes_have_saved_goes_on_on_any_number_as_if_nothing_had_happened(make_data, store, tmp_path):
    """In an epoch, between two, and after it; optimiser, thresholds, controllers and counters of dead latents too."""

    def data():
        if make_data == "synthetic":
            return synthetic()
        return ActivationDataModule(str(store), batch_size=256, validation_share=0.1, test_share=0.1, block_rows=4)

    def run(ranks, folder, step=None):
        saved = None if step is None else tmp_path / "two" / "checkpoints" / f"step-{step:08d}"

        def work(_):
            callbacks = RandomStates(), SaveCheckpoints(every_n_steps=1)
            return trained(autoencoders(), data(), *callbacks, resume=saved, **saving(tmp_path / folder))

        return on_ranks(work, ranks)

    two, (alone,) = run(2, "two"), run(1, "alone")
    for number, (ranks, step) in enumerate([(1, 5), (4, 5), (1, 7), (4, 7), (2, 7), (4, 16)]):
        resumed = run(ranks, f"again-{number}", step)
        for rank in resumed:
            assert_same_values(rank["state"], alone["state"], TOLERANCE)
            assert_same_values(rank["figures"], alone["figures"], 1e-6)
        read = [sorted(chain(*parts)) for parts in zip(*(rank["rows"]["train"] for rank in resumed), strict=True)]
        assert read == [sorted(rows) for rows in alone["rows"]["train"]][step:]
        if ranks == 2:
            assert all(torch.equal(value, two[0]["state"][name]) for name, value in resumed[0]["state"].items())
    assert_close(torch.stack([rank["losses"] for rank in two]).mean(dim=0), alone["losses"], rtol=0, atol=TOLERANCE)


def rows_of_ranks(ranks):
    """Those of every batch, by step."""
    return [list(chain(*parts)) for parts in zip(*(rank["rows"]["train"] for rank in ranks), strict=True)]


@pytest.mark.slow
def test_a_stream_goes_on_on_any_number_of_processes(make_streamed, tmp_path):
    """In a pass, with the batches that it would have had; at its end with the same rows in other ones; and in the next
    pass.
    """
    make_streamed()  # the held-out store
    steps = 44  # a pass has some 38

    def run(ranks, folder, saved=None):
        def work(_):
            data, callbacks = make_streamed(stage=None), (RandomStates(), SaveCheckpoints(every_n_steps=1))
            several = {**saving(tmp_path / folder), "steps": steps, "val_check_interval": steps}
            return trained(autoencoders(), data, *callbacks, resume=saved, **several)

        return on_ranks(work, ranks)

    def saved(folder, step):
        return tmp_path / folder / "checkpoints" / f"step-{step:08d}"

    begun = {ranks: run(ranks, f"begun-{ranks}") for ranks in (1, 2)}
    for before, after, place in [(2, 1, 5), (2, 4, 5), (1, 2, 23), (2, 1, "end"), (2, 4, "end"), (2, 1, "next")]:
        read = rows_of_ranks(begun[before])
        seen = list(chain(*read))
        end = next(step for step in range(1, steps) if len({*seen[: 32 * (step + 1)]}) < 32 * (step + 1))
        assert 30 < end < 40
        step = {"end": end, "next": end + 2}.get(place, place)
        folder = f"{before}-{after}-{place}"
        resumed = run(after, folder, saved(f"begun-{before}", step))
        rows = rows_of_ranks(resumed)
        same_until = steps if place == "next" else end
        assert rows[: same_until - step] == read[step:same_until]
        second = list(chain(*read[end:step], *rows[max(0, end - step) :]))
        assert len({*second}) == len(second) == 32 * (steps - end)
        if place == "next":
            assert_same_values(resumed[0]["state"], begun[before][0]["state"], TOLERANCE)
        elif place != "end":
            mine, expected = (read_model(saved(name, end))["state_dict"] for name in (folder, f"begun-{before}"))
            assert_same_values(mine, expected, TOLERANCE)


# ---- the command line


def launched(ranks, arguments):
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", f"--master_port={free_port()}"]
    several = ("--trainer.devices", str(ranks), "--trainer.strategy", "ddp" if ranks > 1 else "auto")
    return subprocess.Popen(
        [*command, "main.py", *arguments, "--trainer.accelerator", "cpu", *several],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_a_run_that_two_processes_began_goes_on_on_one_and_on_four(tmp_path):
    def arguments(*more):
        return [
            *("fit", "--config", str(ROOT / "configs" / "synthetic.yaml")),
            *("--data.batch_size", "64", "--data.train_rows", "700", "--data.validation_rows", "101"),
            *("--model.sample_rows", "500", "--model.autoencoder.d_sae", "64"),
            *("--trainer.max_epochs", "3", "--trainer.precision", "64-true", "--trainer.callbacks.every_n_steps", "3"),
            *("--run.identity.code", "false"),
            *more,
        ]

    def folder_of(name):
        (folder,) = (tmp_path / name).glob("*/spec-*_exec-*/v*")
        return folder

    finished(launched(1, arguments("--run.folder", str(tmp_path / "straight"))))
    process = launched(2, arguments("--run.folder", str(tmp_path / "two")))
    while process.poll() is None and not list((tmp_path / "two").glob("*/*/v*/checkpoints/step-????????")):
        pass
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=200)
    assert process.returncode
    assert list_checkpoints(folder_of("two") / "checkpoints")[-1].step < 30
    expected = final_state(folder_of("straight"))
    for ranks in (1, 4):
        again = tmp_path / f"on-{ranks}"
        shutil.copytree(tmp_path / "two", again)
        finished(launched(ranks, arguments("--run.folder", str(again), "--resume", str(folder_of(again.name)))))
        found = final_state(folder_of(again.name))
        assert found["step"] == expected["step"] == 30
        for name, value in expected.items():
            assert_close(torch.as_tensor(found[name]), torch.as_tensor(value), rtol=1e-7, atol=1e-9, msg=name)
