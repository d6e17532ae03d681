"""What a run prints for the person who started it: how to go on after an interruption, and at the end one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.graceful_stop import RunStopped
from lightning_modules.diagnosis import Diagnosis
from run_store import write_json
from run_store.checkpoints import list_checkpoints

TABLE = {
    "val/fvu": ("FVU, held-out documents", "{:.4f}"),
    "val/explained_variance": ("explained variance", "{:.4f}"),
    "val/l0": ("L0", "{:.1f}"),
    "val/dead": ("dead latents (never fire in validation)", "{:.2%}"),
    "train/dead": ("dead latents (training window)", "{:.2%}"),
    "val/dense": ("dense latents", "{:.2%}"),
    "val/ce_loss_score": ("CE loss recovered with the reconstruction in the model", "{:.1%}"),
    "val/embedding_cosine": ("cosine of the embedding with the reconstruction in the model", "{:.3f}"),
    "val/recovered": ("true features found (cosine > 0.9)", "{:.1%}"),
}

DIAGNOSIS_NAME = "diagnosis.json"
DIAGNOSED_ROWS = 4096
TOLD_ABOVE = 0.01
"""Share of dead latents above which the diagnosis is printed; it is written in any case."""


class RunSummary(Callback):
    """Prints the resume command at the start and a table at the end, with a diagnosis where more than 1% of the latents
    are dead: why, and which loss terms reach them. RUN_FOLDER/diagnosis.json holds it whatever their share.

    The command stands at the start because a killed run can print nothing. It names the saved config, so it is right
    whatever was typed.
    """

    _folder = Path()
    _started = 0.0
    _diagnosis = ""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        # asked here because all ranks must ask together
        self._folder = Path(str(trainer.log_dir))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.checkpoint_callback is not None:
            print(f"to resume after an interruption: {resume_command(self._folder)}", flush=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After Ctrl-C and other requests to stop says what was kept and how to go on."""
        if isinstance(exception, KeyboardInterrupt | RunStopped) and trainer.is_global_zero and self._started:
            saved = list_checkpoints(self._folder / "checkpoints")
            status = exception.status if isinstance(exception, RunStopped) else "interrupted"
            step = f"\n{status} at step {trainer.global_step:,}"
            go_on = f"; to go on from the last checkpoint: {resume_command(self._folder)}" if saved else ""
            print(f"{step}{go_on}", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the diagnosis, while the weights are still on their device."""
        if trainer.is_global_zero:
            self._diagnosis = self._diagnosed(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(self.table(trainer, pl_module) + self._diagnosis, flush=True)

    def _diagnosed(self, module: Any) -> str:
        """Writes the diagnosis, and returns it as text where it is worth a look."""
        dead = never_firing(module)
        activations = module.data.sample(DIAGNOSED_ROWS).activations
        pair = module.pair([part.to(module.device) for part in activations])
        rows_at_once = min(module.memory.rows_at_once or module.data.batch_size, module.data.batch_size)
        diagnosis = Diagnosis.of(module.autoencoder, pair.x, pair.y, dead, rows_at_once)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / DIAGNOSIS_NAME, diagnosis.plain())
        return f"\n\n{diagnosis.in_words()}" if len(dead) > TOLD_ABOVE * module.autoencoder.d_sae else ""

    def table(self, trainer: Trainer, pl_module: Any) -> str:
        """The closing table as text."""
        seconds = time.perf_counter() - self._started
        metrics = trainer.callback_metrics
        rows = [(label, form.format(float(metrics[name]))) for name, (label, form) in TABLE.items() if name in metrics]
        rows += [
            ("optimiser steps", f"{trainer.global_step:,}"),
            ("tokens trained on", f"{int(pl_module.tokens_seen):,}"),
            ("training and validation", f"{seconds:.0f} s"),
            ("run folder", str(self._folder)),
        ]
        width = max(len(label) for label, _ in rows)
        body = "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)
        hint = f"look at it:  tensorboard --logdir {self._folder}"
        if trainer.checkpoint_callback is not None:
            epochs = 2 * max(1, trainer.current_epoch)
            weights = f"--run.source run --run.path {self._folder} --trainer.max_epochs {epochs}"
            hint += f"\ntrain on:    python main.py fit --config {newest_config(self._folder)} {weights}"
        return f"\n{type(pl_module.autoencoder).__name__}, d_sae {pl_module.autoencoder.d_sae}\n{body}\n{hint}"


def never_firing(module: Any) -> torch.Tensor:
    """[n] numbers of the latents that count as dead, in training or in the last validation."""
    silent = torch.zeros(module.autoencoder.d_sae, dtype=torch.bool, device=module.device)
    if (dead := module.dead_latents()) is not None:
        silent[dead] = True
    if (density := getattr(module, "firing_density", None)) is not None:
        silent |= density == 0
    return silent.nonzero().flatten()


def resume_command(folder: Path) -> str:
    """The line that continues the run in `folder` from its last checkpoint."""
    return f"python main.py fit --config {newest_config(folder)} --resume {folder}"


def newest_config(folder: Path) -> Path:
    """The settings of the run's newest attempt."""
    configs = sorted(folder.glob("config.*.yaml"), key=lambda path: int(path.suffixes[0][1:]))
    return configs[-1] if configs else folder / "config.1.yaml"
