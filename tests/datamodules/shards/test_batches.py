from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from datamodules.shards import ActivationStore, BlockShuffle, EvaluationLoader, Rank, StoreWriter, TrainingLoader
from run_store import UserError

ROWS = 130


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """130 rows, one hook point of d = 2, row i holding i and -i."""
    folder = tmp_path_factory.mktemp("stores") / "counted"
    numbers = torch.arange(ROWS)
    with StoreWriter(folder, {"layer": 2}, "float32", shard_bytes=400) as writer:
        writer.append({"layer": torch.stack([numbers, -numbers], 1).float()}, numbers, numbers // 10, numbers % 10)
        writer.finish({}, [str(number) for number in range(13)])
    return ActivationStore(folder)


def loader(kind, store, batch_size=16, rank=0, world_size=1, rows=ROWS, block_rows=4, seed=0):
    shuffle = BlockShuffle(torch.tensor([[0, rows]]), block_rows, seed)
    return kind(store, shuffle, ["layer"], batch_size, Rank(rank, world_size))


def rows_of(batches):
    return [batch.rows.tolist() for batch in batches]


def joined(lists):
    return list(chain.from_iterable(lists))


def test_a_batch_holds_the_activations_of_its_rows(store):
    for kind in (TrainingLoader, EvaluationLoader):
        for batch in loader(kind, store):
            assert batch.activations[0].dtype == torch.float32
            assert batch.activations[0].tolist() == [[row, -row] for row in batch.rows.tolist()]


@given(
    batch_size=st.integers(1, 40), world_size=st.integers(1, 4), block_rows=st.integers(1, 9), epoch=st.integers(0, 3)
)
def test_an_epoch_of_training_reads_no_row_twice_and_every_whole_batch(
    store, batch_size, world_size, block_rows, epoch
):
    batch_size *= world_size
    if batch_size > ROWS:
        return
    epochs = []
    for rank in range(world_size):
        training = loader(TrainingLoader, store, batch_size, rank, world_size, block_rows=block_rows)
        training.set_epoch(epoch)
        epochs.append(rows_of(training))
        assert len(epochs[-1]) == len(training) == ROWS // batch_size
        assert all(len(rows) == batch_size // world_size for rows in epochs[-1])
    alone = loader(TrainingLoader, store, batch_size, block_rows=block_rows)
    alone.set_epoch(epoch)
    together = [sorted(joined(parts)) for parts in zip(*epochs, strict=True)]
    assert together == rows_of(alone)
    seen = joined(together)
    assert len(seen) == len(set(seen)) == ROWS // batch_size * batch_size


@given(batch_size=st.integers(1, 200), world_size=st.integers(1, 5), rows=st.integers(5, ROWS))
def test_evaluation_reads_every_row_once_and_leaves_no_rank_idle(store, batch_size, world_size, rows):
    ranks = [rows_of(loader(EvaluationLoader, store, batch_size, rank, world_size, rows)) for rank in range(world_size)]
    together = [joined(parts) for parts in zip(*ranks, strict=True)]
    assert sorted(joined(together)) == list(range(rows))
    assert max(map(len, together)) <= batch_size
    assert max(map(len, together)) - min(map(len, together)) <= 1
    if batch_size >= 2 * world_size:
        assert all(all(parts) for parts in ranks)


def test_evaluation_is_the_same_every_time_and_not_in_store_order(store):
    evaluation = loader(EvaluationLoader, store)
    first = rows_of(evaluation)
    assert first == rows_of(evaluation)
    assert first[0] != list(range(len(first[0])))


def test_another_epoch_is_another_order(store):
    training = loader(TrainingLoader, store)
    first = rows_of(training)
    assert rows_of(training) == first
    training.set_epoch(1)
    assert rows_of(training) != first


def test_the_cursor_goes_on_at_the_next_batch(store):
    whole = loader(TrainingLoader, store)
    whole.set_epoch(2)
    expected = rows_of(whole)
    stopped = loader(TrainingLoader, store)
    stopped.set_epoch(2)
    batches = iter(stopped)
    read = [next(batches).rows.tolist() for _ in range(3)]
    resumed = loader(TrainingLoader, store)
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(2)
    assert read + rows_of(resumed) == expected


@pytest.mark.parametrize(("name", "value"), [("batch_size", 8), ("seed", 5), ("block_rows", 2), ("rows", 120)])
def test_a_cursor_into_another_order_is_refused(store, name, value):
    state = loader(TrainingLoader, store).state_dict()
    with pytest.raises(UserError, match=f"made with {name} {state[name]} and this run has {value}"):
        loader(TrainingLoader, store, **{name: value}).load_state_dict(state)


def test_a_batch_that_the_ranks_cannot_share_is_refused(store):
    with pytest.raises(UserError, match="batch_size 16 cannot be shared evenly by 3 devices"):
        loader(TrainingLoader, store, 16, 0, 3)


def test_a_batch_larger_than_the_split_is_refused(store):
    with pytest.raises(UserError, match="batch_size 131 is more than the 130 rows"):
        loader(TrainingLoader, store, 131)


class Recorder(LightningModule):
    """Keeps the rows that it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch.rows.tolist()))
        return (batch.activations[0] @ self.weight).mean()

    def validation_step(self, batch):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEverywhere(Callback):
    """A checkpoint at every hook where Lightning's own callbacks take one, named after hook and step."""

    def __init__(self, folder):
        self.folder = folder
        self.saved = {}

    def save(self, trainer, hook):
        path = self.folder / f"{hook}-{trainer.global_step}.ckpt"
        self.saved[path] = trainer.global_step
        trainer.save_checkpoint(path)

    def on_train_batch_end(self, trainer, *_):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, *_):
        self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, *_):
        self.save(trainer, "epoch")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1.0, 5], ids=["whole epochs", "limited epochs"])
@pytest.mark.parametrize("validate_every", [1.0, 3], ids=["validation at the end", "validation within"])
def test_a_run_resumed_from_any_checkpoint_reads_what_an_uninterrupted_one_does(tmp_path, store, limit, validate_every):
    def fit(callbacks=(), checkpoint=None):
        trainer = Trainer(
            max_epochs=3,
            limit_train_batches=limit,
            val_check_interval=validate_every,
            num_sanity_val_steps=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        module = Recorder()
        data = loader(TrainingLoader, store), loader(EvaluationLoader, store)
        trainer.fit(module, *data, ckpt_path=checkpoint, weights_only=True)
        return module.seen

    saves = SaveEverywhere(tmp_path)
    uninterrupted = fit([saves])
    batches = len(uninterrupted) // 3
    assert batches == (8 if limit == 1.0 else 5)
    assert len(saves.saved) > len(uninterrupted) + 5
    for checkpoint, steps in saves.saved.items():
        assert fit(checkpoint=checkpoint) == uninterrupted[steps:], checkpoint.name
