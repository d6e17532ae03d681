"""Training on the fly by several processes, and by another number of them than a pass was begun with."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from callbacks import AtomicCheckpointIO
from datamodules.mixing import Cursor
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.distributed.ranks import on_ranks
from tests.distributed.steps import Noted
from tests.lightning_modules.test_sharding import latent_parallel

PASS = 35
"""Batches of a pass of two lanes."""
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
}


def on_processes(count, make, work, state=None):
    """What work(data) gives for each of some processes, for which threads stand, after a resume if there is a state."""
    table, barrier = [None] * count, threading.Barrier(count, timeout=60)

    def process(data):
        def all_gather(known):
            table[data.trainer.global_rank] = known
            barrier.wait()
            everyone = torch.stack(table)
            barrier.wait()
            return everyone

        data.trainer.strategy = SimpleNamespace(all_gather=all_gather, root_device=torch.device("cpu"))
        return work(data)

    every = [make() for _ in range(count)]
    for rank, data in enumerate(every):
        if state is not None:
            data.load_state_dict({"cursor": state})
        data.trainer = SimpleNamespace(global_rank=rank, world_size=count, strategy=None)
        data.setup("fit")
        data.sample(1)  # loads the model, which threads cannot do at a time
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(process, every))


@pytest.fixture
def make(make_streamed):
    """Data of which an epoch is longer than a pass. The held-out store is there."""
    make_streamed()
    return partial(make_streamed, stage=None, epoch_batches=100)


def same(whole, parts):
    """Whether a batch has the rows of those of several processes."""
    rows, order = torch.cat([part.rows for part in parts]).sort()
    activations = torch.cat([part.activations[0] for part in parts])[order]
    mine = whole.rows.argsort()
    return torch.equal(whole.rows[mine], rows) and torch.equal(whole.activations[0][mine], activations)


def batches_of(count, data):
    """Each with the state after it."""
    loader = data.train_dataloader()
    batches = [(batch, json.loads(json.dumps(loader.state_dict()))) for batch in islice(loader, count)]
    loader.close()
    return batches


@pytest.mark.parametrize(("stop", "before_lanes"), [(1, True), (20, False)])
def test_one_process_goes_on_with_the_pass_that_two_have_begun(make, stop, before_lanes):
    """To its end, from checkpoints too that were made when a cursor was refused by another number of devices."""
    one, other = on_processes(2, make, partial(batches_of, PASS))
    state = one[stop - 1][1]
    if before_lanes:
        state["order"]["the number of devices"] = 2
        state["cursor"]["leftovers"] = []
    data = make()
    data.load_state_dict({"cursor": state})
    data.setup("fit")
    loader = data.train_dataloader()
    for whole, *parts in zip(islice(loader, PASS - stop), one[stop:], other[stop:], strict=True):
        assert same(whole, [part for part, _ in parts])
        assert all(after["cursor"] == loader.cursor.plain() for _, after in parts)
    assert loader.cursor == Cursor(1)
    loader.close()


def test_a_store_that_one_process_has_filled_is_read_by_several(make, tmp_path):
    """In the rest of the first pass too, which is of one lane that each of them reads."""
    make = partial(make, fill=str(tmp_path / "filled"))
    data = make()
    data.setup("fit")
    filled = batches_of(45, data)
    rounds = [state["cursor"]["round"] for _, state in filled]
    for stop in (rounds.index(1) - 1, rounds.index(1) + 3):
        parts = on_processes(2, make, partial(batches_of, 45 - stop), filled[stop - 1][1])
        for (whole, after), *together in zip(filled[stop:], *parts, strict=True):
            assert same(whole, [part for part, _ in together])
            assert all(state == after for _, state in together)


def test_what_several_processes_cannot_do_is_told(make, tmp_path):
    with pytest.raises(UserError, match="batch_size 32 cannot be shared evenly by 3 devices"):
        on_processes(3, make, lambda data: None)
    with pytest.raises(UserError, match=r"a store is filled by one process: .* or extract it first"):
        on_processes(2, partial(make, fill=str(tmp_path / "none")), lambda data: None)


class FileRecorder(LightningModule):
    """Leaves in a folder what each rank was trained on."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seen = folder, []
        self.weight = torch.nn.Parameter(torch.zeros(16))

    def training_step(self, batch):
        self.seen.append(batch.rows.tolist())
        return (batch.activations[0] @ self.weight).mean()

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_fit_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.seen))


@pytest.mark.slow
def test_two_processes_read_their_own_windows_and_stop_together(make_streamed, tmp_path):
    make_streamed()  # the held-out store
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    fit = Trainer(max_epochs=3, devices=2, strategy="ddp_fork", default_root_dir=tmp_path, **QUIET)
    fit.fit(FileRecorder(tmp_path), make_streamed(stage=None))
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(one) == len(other) == 60
    assert {len(rows) for rows in one + other} == {16}
    windows = [{(-1 - row) >> 32 for rows in seen for row in rows} for seen in (one, other)]
    assert windows[0] == {window for window in windows[0] if window % 2 == 0}
    assert windows[1] == {window for window in windows[1] if window % 2 == 1}
    first_pass = [row for rows in one[:30] + other[:30] for row in rows]
    assert len(first_pass) == len(set(first_pass))


@pytest.mark.slow
def test_groups_of_ranks_that_share_latents_read_as_so_many_processes(make, tmp_path):
    def rows(groups, ranks):
        def work(_):
            noted = Noted()
            settings = {**QUIET, **latent_parallel(groups, ranks), "limit_val_batches": 0, "max_steps": PASS}
            trainer = Trainer(callbacks=[noted], plugins=[AtomicCheckpointIO()], default_root_dir=tmp_path, **settings)
            trainer.fit(SparseAutoencoding(TopK(24, 4), sample_rows=200), make())
            return noted.rows["train"]

        return on_ranks(work, groups * ranks)

    one, other = rows(2, 1)
    assert len(one) == len(other) == PASS
    assert rows(2, 2) == [one, one, other, other]
