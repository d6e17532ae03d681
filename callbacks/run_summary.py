"""What a run prints for the person who started it: how to go on after an interruption, and at the end one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

TABLE = {
    "val/fvu": ("FVU, held-out documents", "{:.4f}"),
    "val/explained_variance": ("explained variance", "{:.4f}"),
    "val/l0": ("L0", "{:.1f}"),
    "val/dead": ("dead latents (never fire in validation)", "{:.2%}"),
    "train/dead": ("dead latents (training window)", "{:.2%}"),
    "val/dense": ("dense latents", "{:.2%}"),
    "val/recovered": ("true features found (cosine ≥ 0.9)", "{:.1%}"),
}


class RunSummary(Callback):
    """Prints the resume command at the start and a table at the end.

    The command stands at the start because a killed run can print nothing. It names the saved config, so it is right
    whatever was typed.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.checkpoint_callback is not None:
            print(f"to resume after an interruption: {resume_command(trainer)}", flush=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After Ctrl-C says what was kept and how to go on."""
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            saved = trainer.log_dir is not None and (Path(trainer.log_dir) / "checkpoints" / "last.ckpt").is_file()
            step = f"\ninterrupted at step {trainer.global_step:,}"
            print(
                f"{step}; to go on from the last checkpoint: {resume_command(trainer)}" if saved else step, flush=True
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(self.table(trainer, pl_module), flush=True)

    def table(self, trainer: Trainer, pl_module: Any) -> str:
        """The closing table as text."""
        seconds = time.perf_counter() - self._started
        metrics = trainer.callback_metrics
        rows = [(label, form.format(float(metrics[name]))) for name, (label, form) in TABLE.items() if name in metrics]
        rows += [
            ("optimiser steps", f"{trainer.global_step:,}"),
            ("tokens trained on", f"{int(pl_module.tokens_seen):,}"),
            ("training and validation", f"{seconds:.0f} s"),
            ("run folder", str(trainer.log_dir)),
        ]
        width = max(len(label) for label, _ in rows)
        body = "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)
        hint = f"look at it:  tensorboard --logdir {trainer.log_dir}"
        if trainer.checkpoint_callback is not None:
            hint += f"\ngo on:       {resume_command(trainer)} --trainer.max_epochs {2 * max(1, trainer.current_epoch)}"
        return f"\n{type(pl_module.autoencoder).__name__}, d_sae {pl_module.autoencoder.d_sae}\n{body}\n{hint}"


def resume_command(trainer: Trainer) -> str:
    """The line that continues this run from its last checkpoint."""
    folder = Path(str(trainer.log_dir))
    configs = sorted(folder.glob("config.*.yaml"), key=lambda path: int(path.suffixes[0][1:]))
    config = configs[-1] if configs else folder / "config.1.yaml"
    return f"python main.py fit --config {config} --resume {folder}"
