import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader, Dataset

from callbacks import AtomicCheckpointIO, RandomStates, SaveCheckpoints
from callbacks.random_states import collect, restore
from lightning_modules.folder_checkpoints import LoadsFolders
from tests.distributed.ranks import ddp, on_ranks

STEPS_OF_AN_EPOCH = 6


class Numbers(Dataset):
    def __len__(self):
        return STEPS_OF_AN_EPOCH

    def __getitem__(self, index):
        return torch.tensor([float(index)])


class Drawing(LoadsFolders):
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


def train(folder, resume=None, **settings):
    seed_everything(3)
    model = Drawing()
    trainer = Trainer(
        **settings,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # an epoch is as long on any number of ranks
        plugins=[AtomicCheckpointIO()],
        callbacks=[RandomStates(), SaveCheckpoints(every_n_steps=1)],
    )
    trainer.fit(model, ckpt_path=resume)
    return model.drawn


EPOCHS, STEPS = {"max_epochs": 3}, {"max_steps": 3 * STEPS_OF_AN_EPOCH}


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("step", "length"),
    [(1, EPOCHS), (4, EPOCHS), *((n * STEPS_OF_AN_EPOCH, length) for n in (1, 2) for length in (EPOCHS, STEPS))],
)
def test_a_resumed_run_draws_what_the_straight_one_drew(tmp_path, step, length):
    straight = train(tmp_path / "straight", **length)
    resumed = train(tmp_path / "resumed", tmp_path / "straight" / "checkpoints" / f"step-{step:08d}", **length)
    assert resumed == {number: drawn for number, drawn in straight.items() if number >= step}


@pytest.mark.slow
def test_every_rank_draws_its_own_numbers_and_goes_on_with_them_also_among_others(tmp_path):
    def on_many(ranks, name, resume=None):
        def work(_):
            several = {"strategy": ddp(), "devices": ranks} if ranks > 1 else {}
            return train(tmp_path / name, resume, max_steps=5, **several)

        return on_ranks(work, ranks)

    straight, alone = on_many(2, "straight"), on_many(1, "alone")
    saved = tmp_path / "straight" / "checkpoints" / "step-00000002"
    resumed, fewer, more, again = (on_many(r, f"on-{n}", saved) for n, r in enumerate((2, 1, 4, 4)))
    late = [{step: drawn for step, drawn in rank.items() if step >= 2} for rank in straight]
    assert straight[0] == alone[0]
    assert resumed == late
    assert fewer == late[:1]
    assert more[:2] == late
    assert more == again, "a function of checkpoint and rank"
    for ranks in (straight, more):
        drawn = [numbers for rank in ranks for step in rank.values() for numbers in step]
        assert len({*drawn}) == len(drawn)


def test_the_state_survives_a_checkpoint_that_holds_plain_values_alone(tmp_path):
    np.random.randn()  # a cached second number is part of the state
    torch.save(collect(), tmp_path / "state")
    expected = (random.random(), np.random.randn(), np.random.rand(), float(torch.randn(())))
    restore(torch.load(tmp_path / "state", weights_only=True))
    assert (random.random(), np.random.randn(), np.random.rand(), float(torch.randn(()))) == expected
