"""What is said of an autoencoder at the end of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from callbacks.closing_summary import Closing, ClosingSummary
from lightning_modules.diagnosis import Diagnosis
from lightning_modules.sweep import Members
from lightning_modules.trainee import Trainee
from run_store import write_json

TABLE = {
    "val/fvu": ("FVU, held-out documents", "FVU", "{:.4f}"),
    "val/explained_variance": ("explained variance", "explained", "{:.4f}"),
    "val/l0": ("L0", "L0", "{:.1f}"),
    "val/dead": ("dead latents (never fire in validation)", "dead", "{:.2%}"),
    "train/dead": ("dead latents (training window)", "dead in training", "{:.2%}"),
    "val/dense": ("dense latents", "dense", "{:.2%}"),
    "val/ce_loss_score": ("CE loss recovered with the reconstruction in the model", "CE recovered", "{:.1%}"),
    "val/embedding_cosine": ("cosine of the embedding with the reconstruction in the model", "cosine", "{:.3f}"),
    "val/recovered": ("true features found (cosine > 0.9)", "found", "{:.1%}"),
}
"""Label, short label and form of each figure."""

DIAGNOSIS_NAME = "diagnosis.json"
DIAGNOSED_ROWS = 4096
TOLD_ABOVE = 0.01
"""Share of dead latents above which the diagnosis is printed; it is written in any case."""


class RunSummary(ClosingSummary):
    """Prints the resume command at the start and a table at the end, with a diagnosis where more than 1% of the latents
    are dead: why, and which loss terms reach them. RUN_FOLDER/diagnosis.json holds it whatever their share. Of a sweep
    the table has a row a member, and the diagnosis is told and kept of each. There is no
    diagnosis of latents that ranks share.
    """

    _diagnosis = ""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Makes the diagnosis, while the weights are still on their device."""
        # ranks that share the latents cannot be asked one by one
        together = any(member.autoencoder.mesh is not None for member in pl_module.members.by_name.values())
        if trainer.is_global_zero and not together:
            self._diagnosis = self._diagnosed(pl_module)

    def _diagnosed(self, module: Any) -> str:
        """Writes the diagnosis, and returns it as text where it is worth a look."""
        sample = [part.to(module.device) for part in module.data.sample(DIAGNOSED_ROWS).activations]
        plain, told = {}, ""
        for name, member, pair in module.members.pairs(sample):
            dead = never_firing(member)
            rows_at_once = min(member.memory.rows_at_once or module.data.batch_size, module.data.batch_size)
            diagnosis = Diagnosis.of(member.autoencoder, pair.x, pair.y, dead, rows_at_once)
            plain[name] = diagnosis.plain()
            if len(dead) > TOLD_ABOVE * member.autoencoder.d_sae:
                told += f"\n\n{f'member {name}, ' if module.members.is_sweep else ''}{diagnosis.in_words()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / DIAGNOSIS_NAME, plain if module.members.is_sweep else plain[name])
        return told

    def closing(self, trainer: Trainer, pl_module: Any) -> Closing:
        metrics, members = trainer.callback_metrics, pl_module.members
        # those of a sweep stand in a table of their own
        named = {name: entry for name, entry in TABLE.items() if name in metrics and not members.is_sweep}
        rows = [(label, form.format(float(metrics[name]))) for name, (label, _, form) in named.items()]
        seen = next(int(member.tokens_seen) for _, member in members.prefixed())
        rows += [("optimiser steps", f"{trainer.global_step:,}"), ("tokens trained on", f"{seen:,}")]
        title = f"{table_of_members(members, metrics)}\n" if members.is_sweep else described(members.sole)
        return Closing(title, rows, self._diagnosis)


def described(member: Trainee) -> str:
    """What is trained, in words."""
    return f"{type(member.autoencoder).__name__}, d_sae {member.autoencoder.d_sae}"


def table_of_members(members: Members, metrics: Mapping[str, Any]) -> str:
    """A row a member, a column a figure that all of them have."""
    known = {name: entry for name, entry in TABLE.items() if name in metrics}
    rows = [["member", *(short for _, short, _ in known.values()), ""]]
    for prefix, member in members.prefixed():
        cells = [form.format(float(metrics[f"{prefix}{name}"])) for name, (_, _, form) in known.items()]
        seen = "" if member.hook_points is None else f" on {', '.join(member.hook_points)}"
        rows.append([prefix.removesuffix("/"), *cells, f"{described(member)}{seen}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line}".rstrip() for line in lines)


def never_firing(member: Trainee) -> torch.Tensor:
    """[n] numbers of the latents that count as dead, in training or in the last validation."""
    silent = torch.zeros_like(member.tokens_since_fired, dtype=torch.bool)
    if (dead := member.dead_latents()) is not None:
        silent[dead] = True
    if member.density is not None:
        silent |= member.density == 0
    return silent.nonzero().flatten()
