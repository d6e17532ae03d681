import json
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, Dataset

from callbacks import AtomicCheckpointIO, RandomStates, SaveCheckpoints
from callbacks.random_states import collect, restore

STEPS_OF_AN_EPOCH = 6


class Numbers(Dataset):
    def __len__(self):
        return STEPS_OF_AN_EPOCH

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Drawing(LightningModule):
    """Draws from every generator at every step, and keeps what came."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.drawn = {}

    def training_step(self, batch, batch_idx):
        numbers = (random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(())))
        self.drawn[self.global_step] = numbers
        return (self.weight * sum(numbers)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        # its iterator draws a seed from torch's generator when it is made
        return DataLoader(Numbers(), batch_size=1)


def train(folder, resume=None):
    seed_everything(3)
    model = Drawing()
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[RandomStates(), SaveCheckpoints(every_n_steps=1)],
    )
    trainer.fit(model, ckpt_path=resume)
    return model.drawn


@pytest.mark.parametrize("step", [1, 4, STEPS_OF_AN_EPOCH, STEPS_OF_AN_EPOCH + 2, 2 * STEPS_OF_AN_EPOCH])
def test_a_resumed_run_draws_what_the_straight_one_drew(tmp_path, step):
    straight = train(tmp_path / "straight")
    resumed = train(tmp_path / "resumed", tmp_path / "straight" / "checkpoints" / f"step-{step:08d}")
    assert resumed == {number: drawn for number, drawn in straight.items() if number >= step}


class OnEveryRank(Drawing):
    """Begins with other numbers on every rank, and leaves what it drew in a file a rank."""

    def __init__(self, folder, resumed):
        super().__init__()
        self.folder, self.resumed = folder, resumed

    def on_train_start(self):
        if not self.resumed:
            seed_everything(3 + self.global_rank)

    def on_train_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.drawn))


def train_two(folder, max_steps, resume=None):
    Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[RandomStates(), SaveCheckpoints(every_n_steps=2)],
    ).fit(OnEveryRank(folder, resume is not None), ckpt_path=resume)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_every_rank_goes_on_with_its_own_numbers(tmp_path):
    straight = train_two(tmp_path, 5)
    resumed = train_two(tmp_path, 5, tmp_path / "checkpoints" / "step-00000002")
    assert straight[0]["2"] != straight[1]["2"]
    assert resumed == [{step: drawn for step, drawn in one.items() if int(step) >= 2} for one in straight]


def test_the_state_survives_a_checkpoint_that_holds_plain_values_alone(tmp_path):
    np.random.randn()  # a cached second number is part of the state
    torch.save(collect(), tmp_path / "state")
    expected = (random.random(), np.random.randn(), np.random.rand(), float(torch.randn(())))
    restore(torch.load(tmp_path / "state", weights_only=True))
    assert (random.random(), np.random.randn(), np.random.rand(), float(torch.randn(()))) == expected
