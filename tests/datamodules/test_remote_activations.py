"""The datamodule on a store at a URL, beside one on the same store in a folder."""

import fsspec
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from datamodules.activations import ActivationDataModule
from datamodules.shards import GroupedShuffle, ShardCache, StoreWriter
from run_store import UserError

DOCUMENTS, ROWS_EACH = 30, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """600 rows of 30 documents at two hook points, in 13 shards of 50 rows; row i holds i at the first one."""
    folder, numbers = tmp_path_factory.mktemp("stores") / "numbered", torch.arange(DOCUMENTS * ROWS_EACH)
    activations = {"layer.2": numbers[:, None].expand(-1, 3), "layer.4": -numbers[:, None]}
    with StoreWriter(folder, {"layer.2": 3, "layer.4": 1}, "float32", shard_bytes=600) as writer:
        writer.append(activations, 1000 + numbers, numbers // ROWS_EACH, numbers % ROWS_EACH)
        writer.finish({"text": {"tokenizer": "none"}}, [f"module_{number}.py" for number in range(DOCUMENTS)])
    return folder


def opened(store, cache=None, **settings):
    shares = {"validation_share": 0.2, "test_share": 0.2}
    data = ActivationDataModule(str(store), **{"batch_size": 16, "block_rows": 4, **shares, **settings}, cache=cache)
    data.prepare_data()
    data.setup("fit")
    return data


def both(folder, tmp_path, size="1MB", **settings):
    cache = ShardCache(str(tmp_path / "cache"), size, 2)
    return opened(folder, **settings), opened(f"file://{folder}", cache, **settings)


def equal(one, other):
    return torch.equal(one.rows, other.rows) and all(map(torch.equal, one.activations, other.activations))


@pytest.mark.parametrize("mixed", [None, 2])
def test_everything_that_is_read_is_what_the_folder_gives(folder, tmp_path, mixed):
    local, remote = both(folder, tmp_path, mixed_shards=mixed)
    assert remote.shapes == local.shapes
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        mine, yours = (list(getattr(data, name)()) for data in (remote, local))
        assert len(mine) == len(yours) > 0
        assert all(map(equal, mine, yours))
    assert equal(remote.sample(40), local.sample(40))
    assert remote.snippet(45, 2, 3) == local.snippet(45, 2, 3)
    assert remote.describe_row(45).endswith("position 5 of document module_2.py)")
    assert remote.lineage()["store_sha256"] == local.lineage()["store_sha256"]
    assert remote.lineage()["store"] == f"file://{folder}"
    remote.teardown("fit")


def test_a_sample_fetches_no_more_than_what_is_mixed_first(folder, tmp_path):
    _, remote = both(folder, tmp_path, mixed_shards=2)
    assert isinstance(remote._splits["train"], GroupedShuffle)
    fetched = []
    monitored = remote.store.fetcher.fetch
    remote.store.fetcher.fetch = lambda file, into: (fetched.append(file.name), monitored(file, into))
    remote.sample(100)
    assert len([name for name in fetched if "layer.2" in name]) == 2


def test_a_run_goes_on_at_the_url_where_the_folder_s_was_left(folder, tmp_path):
    local, remote = both(folder, tmp_path, mixed_shards=3)
    ahead = iter(local.train_dataloader())
    for _ in range(5):
        next(ahead)
    remote.load_state_dict(local.state_dict())
    assert equal(next(iter(remote.train_dataloader())), next(ahead))
    remote.teardown("fit")


@pytest.mark.parametrize(("before", "now"), [(3, 2), (3, None), (None, 3)])
def test_a_resume_with_another_mixture_is_refused(folder, before, now):
    state = opened(folder, mixed_shards=before)
    state.train_dataloader()
    resumed = opened(folder, mixed_shards=now)
    resumed.load_state_dict(state.state_dict())
    with pytest.raises(UserError, match=rf"made with mixed_shards {before or 0} and this run has {now or 0}"):
        resumed.train_dataloader()


def test_a_checkpoint_of_before_knows_no_mixture(folder):
    data = opened(folder)
    data.train_dataloader()
    state = data.state_dict()
    del state["cursor"]["mixed_shards"]
    data.load_state_dict(state)
    data.train_dataloader()


def test_a_cache_that_cannot_hold_the_shuffle_is_refused_before_anything_is_read(folder, tmp_path):
    with pytest.raises(UserError, match=r"^data\.cache\.size 9 kB does not hold .* to at most \d, or raise"):
        both(folder, tmp_path, "9kB")
    both(folder, tmp_path, "9kB", mixed_shards=1)
    with pytest.raises(UserError, match="is not a size"):
        both(folder, tmp_path, "much")


def test_the_cache_is_no_part_of_a_run_s_identity(folder, tmp_path):
    settings = {"store": f"file://{folder}", "extractor": None, "text": None}
    identity = ActivationDataModule.identity_of(settings)
    assert identity == ActivationDataModule.identity_of({**settings, "store": str(folder)})
    assert identity["cache"] is None
    with pytest.raises(UserError, match=r"no activation store in memory://nowhere: set data\.store"):
        ActivationDataModule.identity_of({**settings, "store": "memory://nowhere"})


def test_a_store_that_is_missing_at_a_url_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no activation store in memory://nowhere: set data\.store"):
        opened("memory://nowhere")
    assert not fsspec.filesystem("memory").exists("nowhere")


class Seen(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.rows = []

    def training_step(self, batch):
        self.rows.append(batch.rows.tolist())
        return ((batch.activations[0] @ self.weight - 1) ** 2).mean()

    def validation_step(self, batch):
        self.rows.append(batch.rows.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def test_a_training_at_a_url_ends_with_the_weights_of_one_from_the_folder(folder, tmp_path):
    seen = []
    settings = {"batch_size": 16, "validation_share": 0.2, "test_share": 0.2, "mixed_shards": 2}
    for store in (str(folder), f"file://{folder}"):
        trainer = Trainer(
            max_epochs=2,
            limit_val_batches=3,
            val_check_interval=5,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        seen.append(Seen())
        cache = ShardCache(str(tmp_path / "cache"), "20kB", 2)
        trainer.fit(seen[-1], ActivationDataModule(store, **settings, cache=cache))
    assert seen[0].rows == seen[1].rows
    assert torch.equal(seen[0].weight, seen[1].weight)
