"""The main job with its latents spread over two processes."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from cli import main
from lightning_modules.checkpoint_files import read_model
from run_store.checkpoints import read_checkpoint
from tests.cli.jobs import ROOT, Job, newest

SHARDED = ("--config", str(ROOT / "configs/trainer/fsdp.yaml"), "--trainer.accelerator=cpu", "--trainer.devices=2")


@pytest.mark.slow
def test_the_main_job_gives_on_two_processes_what_it_gives_on_one(
    finished: tuple[Job, str], job: Job, tmp_path: Path
) -> None:
    process = job.fit(*SHARDED)
    assert process.returncode == 0, process.stderr
    alone, shared = newest(finished[0].run), newest(job.run)
    assert {f"model.rows-{rank}-of-2.safetensors" for rank in (0, 1)} < {path.name for path in shared.iterdir()}
    metrics, shared_metrics = read_checkpoint(alone).metrics, read_checkpoint(shared).metrics
    for name in ("val/fvu", "val/l0", "train/fvu"):
        assert shared_metrics[name] == pytest.approx(metrics[name], rel=1e-2), name
    weights = read_model(shared)["state_dict"]
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        name: tuple(value.shape) for name, value in read_model(alone)["state_dict"].items()
    }

    assert main(["export", "--run", str(job.run), "--format", "safetensors", "--output", str(tmp_path / "out")]) == 0
    (exported,) = (tmp_path / "out").glob("*.safetensors")
    assert load_file(exported)["autoencoder.W_dec"].equal(weights["members.only.autoencoder.W_dec"])
