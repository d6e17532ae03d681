"""Run in an environment that has sentence-transformers: train_embedder.py SETTINGS.json.

Fine-tunes by SentenceTransformerTrainer and MultipleNegativesRankingLoss, whose defaults decide whatever SETTINGS does
not say: the model's folder, rows (JSON lines with anchor, positive, negative), batch, max_length, bf16, dropout, seed.
With warm_up and turn it takes turns, see `turns`; with epochs and output it saves the model in the folder `output`, and
how many seconds the training took in the file `seconds`.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback
from turns import Turns

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class TakesTurns(TrainerCallback):
    """At the start of every step; the batch was read before, so that reading the next one belongs to a turn."""

    def __init__(self, turns):
        self.turns = turns

    def on_step_begin(self, *_, **__):
        self.turns.step_begins()


def trainer(settings, folder, callbacks, **length):
    model = SentenceTransformer(settings.model, device="cpu", config_kwargs={} if settings.dropout else NO_DROPOUT)
    model.max_seq_length = settings.max_length
    rows = Dataset.from_list([json.loads(line) for line in Path(settings.rows).read_text().splitlines()])
    arguments = SentenceTransformerTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch,
        bf16=settings.bf16,
        seed=settings.seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        **length,
    )
    return SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        loss=MultipleNegativesRankingLoss(model),
        callbacks=callbacks,
    )


def take_turns(settings, folder):
    turns = Turns(settings.warm_up, settings.turn)
    trainer(settings, folder, [TakesTurns(turns)], max_steps=1_000_000).train()


def train(settings, folder):
    made = trainer(settings, folder, [], num_train_epochs=settings.epochs)
    started = time.perf_counter()
    made.train()
    Path(settings.seconds).write_text(str(time.perf_counter() - started))
    made.model.save_pretrained(settings.output, create_model_card=False)


if __name__ == "__main__":
    settings = SimpleNamespace(**json.loads(Path(sys.argv[1]).read_text()))
    with tempfile.TemporaryDirectory() as folder:
        (take_turns if hasattr(settings, "turn") else train)(settings, folder)
