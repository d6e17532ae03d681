"""Tiny language models and trainings on their activations, for tests of what is told of texts."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from backbones import Extractor
from datamodules.activations import ActivationDataModule
from datamodules.text import StandardLibrary
from datamodules.text_contexts import TextContexts
from run_store.predictions import PredictionStore
from tests.callbacks.test_spliced_evaluation import save_byte_tokenizer

LENGTH, WIDTH = 48, 16


def save_gpt2(folder) -> str:
    """Random weights over bytes, two layers."""
    torch.manual_seed(0)
    save_byte_tokenizer(folder)
    sizes = {"vocab_size": 257, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
    config = GPT2Config(**sizes, initializer_range=0.4, bos_token_id=256, eos_token_id=256)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def save_bert(folder) -> str:
    """The same without a head that predicts text."""
    torch.manual_seed(0)
    save_byte_tokenizer(folder)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=257, max_position_embeddings=LENGTH, **sizes)).save_pretrained(folder)
    return str(folder)


def activations(model, store, hook_points, known=True, **settings) -> ActivationDataModule:
    """The activations of a model on Python's standard library.

    Args:
        model: Its folder.
        store: Where they are stored once.
        hook_points: Which.
        known: Whether the model is in the settings when they are read.
        **settings: Those of the data that are others.
    """

    def data():
        text = TextContexts(StandardLibrary(max_characters=1500), model, LENGTH, max_tokens=6000)
        extractor = Extractor(model, list(hook_points), "float32", "float32", device="cpu")
        shares = {"validation_share": 0.2, "test_share": 0.1, "verify": False, **settings}
        return ActivationDataModule(str(store), 128, extractor=extractor, text=text, **shares)

    made = data()
    if not known:
        made.prepare_data()
        made.extractor = made.text = None
    return made


def trainer(folder, *callbacks, **settings) -> Trainer:
    """A quiet one for the CPU."""
    common = {
        "accelerator": "cpu",
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 2,
        "limit_train_batches": 4,
        "use_distributed_sampler": False,
    }
    return Trainer(callbacks=list(callbacks), **{**common, **settings})


def kept(folder):
    """(runs, predictions) of the store in a folder; nothing where there is none."""
    if not (folder / "predictions.sqlite").exists():
        return [], []
    with PredictionStore(folder / "predictions.sqlite", read_only=True) as store:
        runs = store.runs()
        return runs, [each for run in runs for each in store.predictions(run=run.run_id)]


def fitted(folder, parts, callback=None, *others, **settings):
    """A training in a folder: its Trainer and model."""
    chosen = [] if callback is None else [callback]
    fit = trainer(folder, *chosen, *others, **settings)
    model, data = parts()
    fit.fit(model, data)
    return fit, model
