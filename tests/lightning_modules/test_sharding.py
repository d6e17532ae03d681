"""Trainings whose latents are spread over processes, against the same in one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from safetensors.torch import load_file
from torch import Tensor, distributed

from callbacks import AtomicCheckpointIO, DeadNeuronResampling, SaveCheckpoints
from datamodules.activations import ActivationDataModule
from datamodules.shards import ActivationBatch
from exports import find_trained, kind_of
from lightning_modules.autoencoders import Autoencoder, BatchTopK, JumpReLU, TopK
from lightning_modules.functional import gathered
from lightning_modules.sharding import LatentParallel
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

STEPS = 12
SETTINGS = {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2, "val_check_interval": 10}


class InFloat64(ActivationDataModule):
    """Rows that leave no room for rounding; Lightning has no such precision for a ModelParallelStrategy."""

    def sample(self, rows: int) -> ActivationBatch:
        return self.on_after_batch_transfer(super().sample(rows), 0)

    def on_after_batch_transfer(self, batch: ActivationBatch, dataloader_idx: int) -> ActivationBatch:
        return ActivationBatch(tuple(part.double() for part in batch.activations), batch.rows)


class TheseProcesses(LightningEnvironment):
    """Those that `on_ranks` has started."""

    creates_processes_externally = True

    def world_size(self) -> int:
        return distributed.get_world_size() if distributed.is_initialized() else 1

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return distributed.get_rank() if distributed.is_initialized() else 0

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.global_rank()

    def node_rank(self) -> int:
        return 0


def latent_parallel(data_parallel: int, tensor_parallel: int) -> dict[str, Any]:
    strategy = LatentParallel(data_parallel, tensor_parallel, process_group_backend="gloo")
    strategy.cluster_environment = TheseProcesses()
    return {"strategy": strategy, "devices": data_parallel * tensor_parallel}


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@float64()
def fit(
    store: Path,
    folder: Path,
    autoencoder: Callable[[], Autoencoder],
    resume: Path | None = None,
    asynchronous: bool = False,
    **settings: Any,
) -> dict[str, Tensor]:
    """All that a training leaves: state, moments and figures, whole."""
    torch.manual_seed(0)
    data = InFloat64(str(store), batch_size=64, validation_share=0.1, test_share=0.1, block_rows=4)
    model = SparseAutoencoding(autoencoder(), dead_after_tokens=200, sample_rows=512, non_finite="roll_back")
    # as the command line leaves it, for the export
    kind = {"class_path": f"lightning_modules.autoencoders.{type(model.autoencoder).__name__}"}
    instantiator = "lightning.pytorch.cli.instantiate_module"
    own = {"autoencoder": {**kind, "init_args": {"d_sae": 24, "k": 3}}, "_instantiator": instantiator}
    model.hparams.update({"_class_path": "lightning_modules.sparse_autoencoding.SparseAutoencoding", **own})
    trainer = Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            DeadNeuronResampling((5.0,), rows=256),
            SaveCheckpoints(every_n_steps=4, asynchronous=asynchronous),
        ],
        default_root_dir=folder,
        **{**SETTINGS, **settings},
    )
    trainer.fit(model, data, ckpt_path=None if resume is None else str(resume))
    seen = {name: gathered(value).clone() for name, value in model.state_dict().items()}
    for number, state in trainer.optimizers[0].state_dict()["state"].items():
        seen |= {f"{number} {name}": gathered(value).clone() for name, value in state.items()}
    return seen | {name: torch.as_tensor(value).double() for name, value in trainer.callback_metrics.items()}


def topk() -> Autoencoder:
    return TopK(24, 3)


def batch_topk() -> Autoencoder:
    return BatchTopK(24, 3)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        # figures are float32
        most = max(tolerance, 1e-6) if name.startswith(("train/", "val/")) else tolerance
        torch.testing.assert_close(other[name], value, rtol=0, atol=most, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_a_training_is_that_of_one_process_however_the_ranks_share_latents_and_rows(
    on_ranks: Callable[..., list[Any]], store: Path, tmp_path: Path
) -> None:
    alone = [fit(store, tmp_path / "one", topk), fit(store, tmp_path / "one-batch", batch_topk)]

    def shared(data_parallel: int, tensor_parallel: int) -> list[dict[str, Tensor]]:
        folder, shape = tmp_path / f"{data_parallel}x{tensor_parallel}", (data_parallel, tensor_parallel)
        return [
            fit(store, folder, topk, **latent_parallel(*shape)),
            fit(store, folder / "batch", batch_topk, **latent_parallel(*shape)),
        ]

    for arrangements in ([(1, 2), (2, 1)], [(2, 2)]):
        ranks = arrangements[0][0] * arrangements[0][1]
        of_every = on_ranks(lambda rank, those=arrangements: [shared(*each) for each in those], ranks)
        for ended in (ended for of_rank in of_every for ended in of_rank):
            for one, other in zip(alone, ended, strict=True):
                assert_same(one, other)


@pytest.mark.slow
def test_a_training_goes_on_on_any_number_of_ranks(
    on_ranks: Callable[..., list[Any]], store: Path, tmp_path: Path
) -> None:
    saved_by_two, saved_by_one = (tmp_path / name / "checkpoints/step-00000004" for name in ("two", "one"))
    alone = fit(store, tmp_path / "one", topk)

    def on_two(rank: int) -> list[dict[str, Tensor]]:
        return [
            fit(store, tmp_path / "two", topk, asynchronous=True, **latent_parallel(1, 2)),
            fit(store, tmp_path / "two-again", topk, saved_by_two, **latent_parallel(1, 2)),
            fit(store, tmp_path / "two-from-one", topk, saved_by_one, **latent_parallel(1, 2)),
        ]

    for two, again, from_one in on_ranks(on_two, 2):
        assert_same(alone, two)
        assert_same(two, again, tolerance=0)
        assert_same(alone, from_one)
    for four in on_ranks(lambda rank: fit(store, tmp_path / "four", topk, saved_by_two, **latent_parallel(1, 4)), 4):
        assert_same(alone, four)
    assert_same(alone, fit(store, tmp_path / "one-from-two", topk, saved_by_two))

    names = {path.name for path in saved_by_two.iterdir()}
    rows = {f"{kind}.rows-{rank}-of-2.safetensors" for kind in ("model", "state") for rank in (0, 1)}
    assert names == {"manifest.json", "model.safetensors", "state.ckpt", *rows}
    exported = [exported_from(tmp_path / name / f"checkpoints/step-{STEPS:08d}") for name in ("one", "two")]
    assert exported[0].keys() == exported[1].keys()
    for name, value in exported[0].items():
        torch.testing.assert_close(exported[1][name], value, rtol=0, atol=1e-10)


def exported_from(checkpoint: Path) -> dict[str, Tensor]:
    trained, folder = find_trained(str(checkpoint)), checkpoint.parent.parent / "exported"
    with float64():
        kind_of(trained).export(trained, folder, "safetensors")
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def refused(store: Path, autoencoder: Autoencoder, tensor_parallel: int, devices: int) -> str:
    """Why, before any process waits for another."""
    settings = {**latent_parallel(1, tensor_parallel), "devices": devices}
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    with pytest.raises(UserError) as error:
        trainer.fit(SparseAutoencoding(autoencoder), ActivationDataModule(str(store), batch_size=64))
    return str(error.value)


def test_what_cannot_be_shared_is_refused_before_any_process_waits(store: Path) -> None:
    assert refused(store, JumpReLU(24), 2, 2).startswith(
        "trainer.strategy spreads the latents over 2 ranks and JumpReLU needs all of them at once"
    )
    assert "d_sae is 25 and trainer.strategy spreads the latents over 2 ranks" in refused(store, TopK(25, 3), 2, 2)
    assert "has 1 groups of 3 ranks and trainer.devices and trainer.num_nodes give 2" in refused(store, topk(), 3, 2)
    settings = latent_parallel(1, 2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    with pytest.raises(UserError, match="BoringModel has no latents to share: set it to ddp"):
        trainer.fit(BoringModel())
