"""A tiny fine-tuning: a decoder with adapters, prompts from the data."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from cli import main
from tests.exports.encoders import save_qwen

PROMPTS = {"anchor": "find: ", "positive": "code: "}


def train_encoder(folder: Path) -> Path:
    """The folder of all runs, one of them finished, called tiny; FOLDER/job.yaml is what was asked for."""
    rows = [{"anchor": f"number {i}", "positive": f"def f{i}(): return {i}"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = {
        "model": save_qwen(folder / "qwen"),
        "pooling": "last_token",
        "max_length": 32,
        "precision": "float32",
        "lora": {"r": 2},
    }
    columns = {"anchor": "anchor", "positive": "positive", "negatives": []}
    source = {"class_path": "TripletFiles", "init_args": {"files": str(folder / "rows.jsonl"), "columns": columns}}
    settings = {
        "run": {"name": "tiny", "folder": str(folder / "runs"), "identity": {"code": False}},
        "model": {
            "class_path": "ContrastiveEmbedding",
            "init_args": {
                "encoder": {"class_path": "TextEncoder", "init_args": encoder},
                "loss": {"class_path": "InfoNCE"},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {
            "class_path": "TripletDataModule",
            "init_args": {
                "source": source,
                "batch_size": 8,
                "validation_share": 0.2,
                "prompts": PROMPTS,
                "cache": str(folder / "cache"),
            },
        },
        "trainer": {
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "callbacks": [{"class_path": "SaveCheckpoints", "init_args": {"every_n_steps": 4}}],
        },
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(folder / "job.yaml")]) == 0
    return folder / "runs"
