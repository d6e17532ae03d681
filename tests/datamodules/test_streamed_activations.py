"""Training on the fly and filling a store on the way, through the real Trainer and a tiny model."""

import json
import threading
from collections import Counter
from itertools import islice
from time import sleep

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from backbones import Extractor
from datamodules.activations import ActivationDataModule
from datamodules.extraction import extract_to_store
from datamodules.shards import is_store, read_manifest
from datamodules.text_contexts import TextContexts
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.datamodules.conftest import SHARES, TOKENIZER

BATCH = 32


@pytest.fixture
def make_data(make_streamed):
    return make_streamed


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_bert, stories):
    """The store that an ordinary extraction of the same text makes."""
    folder = tmp_path_factory.mktemp("stores") / "whole"
    text = TextContexts(stories(), TOKENIZER, context_length=16, batch_size=4, window_batches=1)
    extract_to_store(Extractor(tiny_bert, ["encoder.layer.0"], precision="float32"), text, folder)
    return folder


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fulgurite-ahead")]


def batches_of(loader, count):
    """The next batches, over as many epochs as it takes."""
    batches = []
    while len(batches) < count:
        batches += islice(loader, count - len(batches))
        if loader.batch == 0:
            loader.set_epoch(loader.epoch + 1)
    return batches


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(a.rows, b.rows) and torch.equal(a.activations[0], b.activations[0])
        for a, b in zip(some, others, strict=True)
    )


def vectors(activations):
    return Counter(row.numpy().tobytes() for row in activations)


def test_a_pass_brings_the_training_rows_of_an_ordinary_store_each_once(make_data, whole):
    data = make_data()
    stored = ActivationDataModule(str(whole), batch_size=1, **SHARES)
    stored.setup("fit")
    training = stored.sample(10**6).activations[0]
    loader = data.train_dataloader()
    batches = batches_of(loader, len(training) // BATCH)
    rows = torch.cat([batch.rows for batch in batches])
    assert len(rows.unique()) == len(rows) == len(training) // BATCH * BATCH > 1000
    assert vectors(torch.cat([batch.activations[0] for batch in batches])) <= vectors(training)
    assert loader.cursor.round == 1
    # and the second pass brings them in another order
    again = torch.cat([batch.rows for batch in batches_of(loader, len(batches))])
    assert not torch.equal(rows, again)
    assert len(set(again.tolist()) & set(rows.tolist())) > len(rows) - BATCH
    loader.close()


def test_evaluation_reads_the_held_out_documents_alone(make_data, whole):
    data = make_data("test")
    stored = ActivationDataModule(str(whole), batch_size=BATCH, **SHARES)
    stored.setup("test")
    for streamed, other in [
        (data.val_dataloader(), stored.val_dataloader()),
        (data.test_dataloader(), stored.test_dataloader()),
    ]:
        names = [
            {
                source.store.document_names[number]
                for batch in source
                for number in source.store.provenance(batch.rows).documents
            }
            for source in (streamed, other)
        ]
        assert names[0] == names[1] != set()
    tokens, index = data.snippet(0, 0, 3)
    assert len(tokens) == 4
    assert index == 0
    assert data.tokenizer().decode(tokens[:1])


def test_the_thread_changes_no_bit(make_data):
    runs = []
    for ahead in (True, False):
        loader = make_data(ahead=ahead).train_dataloader()
        runs.append(batches_of(loader, 70))
        loader.close()
    assert same(*runs)


@pytest.mark.first_is_fast
@pytest.mark.parametrize("stop", [1, 7, 20, 33, 50, 53])
def test_a_loader_goes_on_from_its_state(make_data, stop):
    """In the first segment, later, at an epoch's end, near a pass's end and in the second pass."""
    loader = make_data().train_dataloader()
    batches_of(loader, stop)
    state = json.loads(json.dumps(loader.state_dict()))
    expected = batches_of(loader, 30)
    loader.close()
    resumed = make_data().train_dataloader()
    resumed.load_state_dict(state)
    resumed.set_epoch(state["epoch"])
    assert same(batches_of(resumed, 30), expected)
    resumed.close()


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"pool_windows": 8}, "pool_windows 4"), ({"seed": 1}, "seed 0"), ({"batch_size": 16}, "batch_size 32")],
)
def test_a_cursor_into_another_order_is_refused(make_data, settings, name):
    state = make_data().train_dataloader().state_dict()
    other = make_data(stage=None, **settings)
    other.load_state_dict({"cursor": state})
    with pytest.raises(UserError, match=f"made with {name} and this run has"):
        other.setup("fit")


def trainer(folder, **settings):
    defaults = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings})


def module():
    torch.manual_seed(0)
    return SparseAutoencoding(TopK(24, 3), sample_rows=200)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Stop(Callback):
    """Saves after a step and raises."""

    def __init__(self, step, path, error):
        self.step, self.path, self.error = step, path, error

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise self.error


@pytest.fixture(scope="module")
def uninterrupted():
    """Weights of a run that nothing has stopped, by whether it fills a store."""
    return {}


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("stop_after", "fill"), [(1, False), (20, False), (37, False), (45, False), (13, True), (37, True), (45, True)]
)
def test_an_interrupted_run_goes_on_bit_identically(make_data, whole, tmp_path, uninterrupted, stop_after, fill):
    """Early, at an epoch's end, when the first pass (38 batches) is almost through, and in the second."""

    def data(name):
        return make_data(stage=None, fill=str(tmp_path / name) if fill else None)

    if fill not in uninterrupted:
        uninterrupted[fill] = module()
        trainer(tmp_path).fit(uninterrupted[fill], data("straight"))
        assert not fill or contents(tmp_path / "straight") == contents(whole)
    stop = Stop(stop_after, tmp_path / "stopped.ckpt", KeyboardInterrupt())
    with pytest.raises(SystemExit):  # what Lightning makes of Ctrl-C
        trainer(tmp_path, callbacks=[stop]).fit(module(), data("stopped"))
    resumed = module()
    torch.manual_seed(99)  # the global random state must not matter
    again = trainer(tmp_path)
    again.fit(resumed, data("stopped"), ckpt_path=stop.path, weights_only=True)
    assert again.global_step == 60
    for name, value in uninterrupted[fill].state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not fill or contents(tmp_path / "stopped") == contents(whole)


def test_the_second_pass_reads_the_store_that_the_first_has_filled(make_data, tmp_path):
    data = make_data(fill=str(tmp_path / "filled"))
    loader = data.train_dataloader()
    first = batches_of(loader, 1)
    assert not is_store(tmp_path / "filled")
    while loader.cursor.round == 0:
        first += batches_of(loader, 1)
    assert all(bool((batch.rows < 0).all()) for batch in first)
    rows = read_manifest(tmp_path / "filled").rows
    data.extractor.read_window = None  # nothing may ask for the model any more
    for batch in batches_of(loader, 60):
        assert bool(((batch.rows >= 0) & (batch.rows < rows)).all())
        assert torch.equal(batch.activations[0], data._open_filled()[0].read(batch.rows)[0])
    loader.close()


def test_a_store_that_is_whole_is_simply_read(make_data, whole):
    data = make_data(fill=str(whole))
    data.extractor.read_window = None
    loader = data.train_dataloader()
    stored = ActivationDataModule(str(whole), batch_size=BATCH, **SHARES)
    stored.setup("fit")
    expected = list(stored.train_dataloader())
    assert same(batches_of(loader, len(expected)), expected)
    assert torch.equal(data.sample(100).rows, stored.sample(100).rows)
    assert data.describe_row(3) == stored.describe_row(3)


def test_a_sample_is_the_first_training_rows_and_a_row_is_told_by_its_window(make_data):
    data = make_data()
    sample = data.sample(50)
    assert sample.activations[0].shape == (50, 16)
    assert torch.equal(sample.rows, data.sample(50).rows)
    assert torch.equal(sample.rows, sample.rows.sort(descending=True).values)
    assert len(data.sample(10**6).rows) > 1000
    assert data.describe_row(-1 - (3 << 32) - 7) == "row 7 of window 3 of the text"


def test_a_sample_in_the_middle_of_a_run_waits_for_the_thread_that_reads(make_data):
    """The model's hooks are those of whoever reads: two at a time would see one another's rows."""
    data = make_data()
    expected = data.sample(50)
    reading, most = list[int](), list[int]()
    read_window = data.extractor.read_window

    def watched(window, progress=None):
        reading.append(window.number)
        most.append(len(reading))
        sleep(0.02)  # so that whoever does not wait is seen
        rows = read_window(window)
        reading.pop()
        return rows

    data.extractor.read_window = watched
    loader = data.train_dataloader()
    batches_of(loader, 3)  # another pool is in the making now
    for _ in range(3):
        assert torch.equal(data.sample(50).activations[0], expected.activations[0])
    data.teardown("fit")
    assert max(most) == 1


def test_what_goes_wrong_in_the_thread_stops_the_run_as_itself(make_data, tmp_path):
    data = make_data(stage=None)
    read_window = data.extractor.read_window

    def broken(window, progress=None):
        if window.number >= 15:
            raise UserError("the model has gone")
        return read_window(window, progress)

    data.extractor.read_window = broken
    with pytest.raises(UserError, match="the model has gone"):
        trainer(tmp_path).fit(module(), data)


def test_a_text_with_fewer_rows_than_a_batch_is_told(make_data):
    loader = make_data(batch_size=4000).train_dataloader()
    with pytest.raises(UserError, match="fewer training rows than batch_size 4000"):
        next(iter(loader))
    loader.close()


def test_impossible_settings_are_told(make_data, make_text, whole, tmp_path):
    with pytest.raises(UserError, match=r"both 0.*held-out documents alone"):
        make_data(validation_share=0.0, test_share=0.0)
    data = make_data(stage=None, text=make_text(context_length=32))
    with pytest.raises(UserError, match=r"text\.context_length is 16 there and 32 here"):
        data.prepare_data()
    data.folder, data.fill = tmp_path / "held-out", whole
    with pytest.raises(UserError, match=r"whole was made .*text\.context_length is 16 there and 32 here"):
        data.prepare_data()
