"""When a run saves, in real runs; and that every save is one that a run can go on from, bit for bit."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from callbacks import AtomicCheckpointIO, SaveCheckpoints
from datamodules.activations import ActivationDataModule
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from run_store.checkpoints import list_checkpoints


@pytest.fixture
def fresh(store):
    def make():
        return ActivationDataModule(str(store), batch_size=64, validation_share=0.1, test_share=0.1, block_rows=4)

    return make


def run(data, folder, callbacks, ckpt_path=None, **settings):
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(24, 3), lr_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.99))
    trainer = Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": CSVLogger(folder, version=0),
            "callbacks": callbacks,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "plugins": [AtomicCheckpointIO()],
            **settings,
        }
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return model, trainer


def saved(trainer):
    return list_checkpoints(f"{trainer.log_dir}/checkpoints")


def steps(trainer):
    return [checkpoint.step for checkpoint in saved(trainer)]


def test_a_schedule_adds_steps_to_those_of_the_interval(fresh, tmp_path):
    _, trainer = run(fresh(), tmp_path, [SaveCheckpoints(10, at_steps=[1, 3])], max_epochs=1)
    last = trainer.num_training_batches
    assert steps(trainer) == sorted({1, 3, 10, 20, last})


def test_minutes_are_counted_from_the_save_before(fresh, tmp_path):
    _, always = run(fresh(), tmp_path / "a", [SaveCheckpoints(None, every_n_minutes=1e-9)], max_epochs=1)
    assert steps(always) == list(range(1, always.num_training_batches + 1))
    _, never = run(fresh(), tmp_path / "b", [SaveCheckpoints(None, every_n_minutes=1e9)], max_epochs=1)
    assert steps(never) == [never.num_training_batches]


def test_only_whole_optimiser_steps_are_saved(fresh, tmp_path):
    saves = SaveCheckpoints(None, every_n_minutes=1e-9)
    _, trainer = run(fresh(), tmp_path, [saves], max_epochs=1, accumulate_grad_batches=4)
    assert steps(trainer) == list(range(1, trainer.global_step + 1))
    for checkpoint in saved(trainer)[:-1]:
        cursor = AtomicCheckpointIO().load_checkpoint(checkpoint.path)["ActivationDataModule"]["cursor"]
        assert cursor["batch"] == 4 * checkpoint.step


def test_the_metrics_of_a_validation_are_recorded_with_the_weights_they_measured_alone(fresh, tmp_path):
    _, trainer = run(fresh(), tmp_path, [SaveCheckpoints(6)], val_check_interval=12, max_epochs=1)
    metrics = {checkpoint.step: checkpoint.metrics for checkpoint in saved(trainer)}
    assert all("train/fvu" in measured for measured in metrics.values())
    # 12 and 24 were saved by the interval before they were measured
    assert [step for step, measured in metrics.items() if "val/fvu" in measured] == [12, 24]


def test_a_validation_in_mid_epoch_saves_what_it_measured(fresh, tmp_path):
    _, trainer = run(fresh(), tmp_path, [SaveCheckpoints(None)], val_check_interval=7, max_epochs=1)
    assert steps(trainer) == [7, 14, 21, trainer.num_training_batches]
    assert len({checkpoint.metrics.get("val/fvu") for checkpoint in saved(trainer)[:3]}) == 3


class StopAt(Callback):
    """Stops a run as whoever was asked to would: saves the step that was just finished, then says so."""

    def __init__(self, saver, batch, raises=None):
        self.saver, self.batch, self.raises = saver, batch, raises
        self.path = "not reached"

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.batch:
            self.path = self.saver.save_now(trainer)
            if self.raises:
                raise self.raises
            trainer.should_stop = True


def demand_identical(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("asynchronous", "every"),
    [(False, 4), pytest.param(False, 1, marks=pytest.mark.slow), pytest.param(True, 1, marks=pytest.mark.slow)],
)
def test_every_save_of_a_run_can_be_gone_on_from_bit_for_bit(fresh, tmp_path, asynchronous, every):
    """Due ones, those at a validation in mid-epoch, and those at an epoch's end."""
    settings = {"val_check_interval": 7, "max_epochs": 2}
    straight, trainer = run(fresh(), tmp_path, [SaveCheckpoints(10, asynchronous=asynchronous)], **settings)
    checkpoints = saved(trainer)
    assert len(checkpoints) > 8
    for checkpoint in checkpoints[::every]:
        resumed, again = run(fresh(), tmp_path / "again", [], checkpoint.path, enable_checkpointing=False, **settings)
        assert again.global_step == trainer.global_step
        demand_identical(straight, resumed)


def test_a_run_stopped_by_save_now_goes_on_bit_for_bit(fresh, tmp_path):
    straight, _ = run(fresh(), tmp_path / "straight", [SaveCheckpoints(1000)])
    saver = SaveCheckpoints(1000)
    stop = StopAt(saver, 11)
    _, stopped = run(fresh(), tmp_path, [saver, stop])
    assert stop.path == saved(stopped)[-1].path
    assert steps(stopped) == [11]
    resumed, _ = run(fresh(), tmp_path, [SaveCheckpoints(1000)], stop.path)
    demand_identical(straight, resumed)


def test_save_now_inside_an_accumulation_leaves_the_last_whole_step(fresh, tmp_path):
    saver = SaveCheckpoints(1)
    stop = StopAt(saver, 10, KeyboardInterrupt())
    with pytest.raises(SystemExit):
        run(fresh(), tmp_path, [saver, stop], accumulate_grad_batches=4)
    assert stop.path is None
    assert [c.step for c in list_checkpoints(tmp_path / "lightning_logs/version_0/checkpoints")] == [1, 2]


@pytest.mark.parametrize("ends", ["max_steps", "early stopping"])
def test_a_run_that_ends_in_mid_epoch_goes_on_there_bit_for_bit(fresh, tmp_path, ends):
    straight, _ = run(fresh(), tmp_path / "straight", [SaveCheckpoints(1000)], val_check_interval=7)
    short = {"val_check_interval": 7, **({"max_steps": 12} if ends == "max_steps" else {})}
    stop = [] if ends == "max_steps" else [EarlyStopping("val/fvu", stopping_threshold=1e9)]
    _, stopped = run(fresh(), tmp_path, [SaveCheckpoints(1000), *stop], **short)
    last = saved(stopped)[-1]
    assert last.step == (12 if ends == "max_steps" else 7)
    resumed, _ = run(fresh(), tmp_path, [SaveCheckpoints(1000)], last.path, val_check_interval=7)
    demand_identical(straight, resumed)


def test_early_stopping_goes_on_counting_where_it_was(fresh, tmp_path):
    """The patience of three fruitless validations runs out at the same step, whatever was in between."""

    def stop():
        return EarlyStopping("val/fvu", min_delta=10.0, patience=3, check_on_train_epoch_end=False)

    settings = {"val_check_interval": 7, "max_epochs": 5}
    _, straight = run(fresh(), tmp_path / "straight", [SaveCheckpoints(1000), stop()], **settings)
    _, stopped = run(fresh(), tmp_path, [SaveCheckpoints(1000), stop()], **settings, max_steps=16)
    _, resumed = run(fresh(), tmp_path, [SaveCheckpoints(1000), stop()], saved(stopped)[-1].path, **settings)
    assert 16 < straight.global_step < 5 * straight.num_training_batches
    assert resumed.global_step == straight.global_step


def test_the_scale_of_mixed_precision_goes_on_where_it_was(fresh, tmp_path):
    def plugins():
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=5)
        return {"plugins": [AtomicCheckpointIO(), MixedPrecision("16-mixed", "cpu", scaler)]}

    straight, whole = run(fresh(), tmp_path / "straight", [SaveCheckpoints(1000)], max_steps=12, **plugins())
    _, stopped = run(fresh(), tmp_path, [SaveCheckpoints(1000)], max_steps=8, **plugins())
    resumed, rest = run(fresh(), tmp_path, [SaveCheckpoints(1000)], saved(stopped)[-1].path, max_steps=12, **plugins())
    scale = whole.precision_plugin.scaler.state_dict()
    assert scale["scale"] == 16.0
    assert scale == rest.precision_plugin.scaler.state_dict()
    demand_identical(straight, resumed)


def test_an_exception_waits_for_the_save_under_way(fresh, tmp_path):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 6:
                raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(fresh(), tmp_path, [SaveCheckpoints(5, asynchronous=True), Fail()])
    folder = tmp_path / "lightning_logs/version_0/checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-00000005"]


def test_leftovers_are_swept_at_the_start(fresh, tmp_path):
    half = tmp_path / "lightning_logs/version_0/checkpoints" / f"step-00000009.{2**22 + 1}.partial"
    half.mkdir(parents=True)
    run(fresh(), tmp_path, [SaveCheckpoints()], max_steps=1)
    assert not half.exists()


def test_another_writer_of_checkpoints_is_refused(fresh, tmp_path):
    with pytest.raises(UserError, match=r"AtomicCheckpointIO: give trainer\.plugins one"):
        run(fresh(), tmp_path, [SaveCheckpoints()], plugins=None)


def test_a_strategy_that_writes_in_its_own_way_is_refused(fresh, tmp_path):
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class Sharded(SingleDeviceStrategy):
        def save_checkpoint(self, checkpoint, filepath, storage_options=None):
            raise AssertionError("never called")

    with pytest.raises(UserError, match=r"Sharded writes checkpoints in its own way.*auto, ddp or LatentParallel"):
        run(
            fresh(),
            tmp_path,
            [SaveCheckpoints()],
            strategy=Sharded(device=torch.device("cpu"), checkpoint_io=AtomicCheckpointIO()),
            accelerator="auto",
            plugins=None,
        )
