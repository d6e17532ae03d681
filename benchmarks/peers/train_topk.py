"""Run in an environment that has the rival libraries: train_topk.py TRAINER SETTINGS.json.

Trains a TopK autoencoder by the library's own trainer with its own defaults, the learning rate apart. SETTINGS has the
file of rows in their order, how many a step takes and how many steps there are, d_sae, k, lr, seed, and the safetensors
file for what has come of it: W_enc [s, d], b_enc, W_dec [s, d] and b_dec, such that the k largest of
relu((x − b_dec) W_encᵀ + b_enc) times W_dec, plus b_dec, is what the library itself reconstructs.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import safe_open
from safetensors.torch import save_file

WARMUP_SHARE = 0.05


class Rows:
    """[rows, d] in a file; a slice of it is read when it is asked for."""

    def __init__(self, path):
        self.file = safe_open(path, framework="pt")
        self.slices = self.file.get_slice("rows")
        self.d = self.slices.get_shape()[1]

    def __getitem__(self, part):
        return self.slices[part]

    def batch(self, number, settings):
        return self[number * settings.batch : (number + 1) * settings.batch]


def saelens(rows, settings):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=rows.d, d_sae=settings.d_sae, k=settings.k))
    config = SAETrainerConfig(
        total_training_samples=settings.steps * settings.batch,
        train_batch_size_samples=settings.batch,
        lr=settings.lr,
        lr_end=settings.lr / 10,  # what its runner makes of None; a constant rate does not read it
    )
    batches = (rows.batch(number, settings) for number in range(settings.steps))
    SAETrainer(config, sae, batches).fit()
    sae.fold_W_dec_norm()  # it selects by pre-activations times the norms of the decoder's rows
    return {"W_enc": sae.W_enc.T, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}


class RowsAsModel(torch.nn.Module):
    """What sparsify's Trainer takes for a transformer: token ids are numbers of rows, and the activation of its hook
    point is the row.
    """

    class Lookup(torch.nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def forward(self, ids):
            first, last = int(ids[0, 0]), int(ids[-1, -1])
            return self.rows[first : last + 1].reshape(*ids.shape, self.rows.d)

    device = torch.device("cpu")
    dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.int64)}  # noqa: RUF012  a model's, never changed

    def __init__(self, rows):
        super().__init__()
        self.hook_point = self.Lookup(rows)

    @property
    def base_model(self):
        return self

    def forward(self, input_ids):
        return self.hook_point(input_ids)


class BatchesOfNumbers(torch.utils.data.Dataset):
    """One sequence a step: the numbers of its rows."""

    def __init__(self, settings):
        self.settings = settings

    def __len__(self):
        return self.settings.steps

    def __getitem__(self, number):
        if number >= len(self):
            raise IndexError(number)
        start = number * self.settings.batch
        return {"input_ids": torch.arange(start, start + self.settings.batch)}


def sparsify(rows, settings, **optimizer):
    from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            SparseCoderConfig(num_latents=settings.d_sae, k=settings.k),
            batch_size=1,  # in sequences
            lr=settings.lr,
            hookpoints=["hook_point"],
            init_seeds=[settings.seed],
            log_to_wandb=False,
            save_dir=folder,
            run_name="run",
            **optimizer,
        )
        Trainer(config, BatchesOfNumbers(settings), RowsAsModel(rows)).fit()
        # the weights as it saves them: schedule-free averages where it has those
        coder = SparseCoder.load_from_disk(Path(folder, "run", "hook_point"))
    weights = coder.encoder
    return {"W_enc": weights.weight, "b_enc": weights.bias, "W_dec": coder.W_dec, "b_dec": coder.b_dec}


def sparsify_adam(rows, settings):
    """Its other optimiser. The default warm-up of 1000 steps would not end in a run as short as these."""
    return sparsify(rows, settings, optimizer="adam", lr_warmup_steps=round(WARMUP_SHARE * settings.steps))


TRAINERS = {"saelens": saelens, "sparsify": sparsify, "sparsify_adam": sparsify_adam}


if __name__ == "__main__":
    settings = SimpleNamespace(**json.loads(Path(sys.argv[2]).read_text()))
    torch.manual_seed(settings.seed)
    weights = TRAINERS[sys.argv[1]](Rows(settings.rows), settings)
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, settings.output)
