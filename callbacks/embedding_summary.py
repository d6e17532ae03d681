"""What is said of an embedding model at the end of its training: before and after, side by side."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from callbacks.closing_summary import Closing, ClosingSummary

SHOWN = {
    "val/ndcg@10": "NDCG@10",
    "val/mrr@10": "MRR@10",
    "val/recall@1": "recall@1",
    "val/recall@10": "recall@10",
    "val/recall@100": "recall@100",
    "val/map": "MAP",
    "val/triplet_accuracy": "triplet accuracy",
    "val/positive_cosine": "cosine of positives",
    "val/negative_cosine": "cosine of negatives",
    "val/alignment": "alignment",
    "val/uniformity": "uniformity",
    "val/mean_cosine": "cosine of two texts",
    "val/effective_rank": "effective rank",
    "val/norm": "norm",
}


class EmbeddingSummary(ClosingSummary):
    """Prints the resume command at the start, and at the end what validation said of the model before its first step
    and says now.
    """

    def closing(self, trainer: Trainer, pl_module: Any) -> Closing:
        metrics, before = trainer.callback_metrics, pl_module.scores_before
        # those of further score spaces have the space's name in the middle
        parts = sorted(name.split("/") for name in metrics)
        further = [part for part in parts if len(part) == 3 and part[0] == "val" and part[2] == "ndcg@10"]
        names = {**SHOWN, **{"/".join(part): f"NDCG@10, {part[1]}" for part in further}}
        rows = [["held-out examples", "before", "after"]]
        for name, label in names.items():
            if name in metrics:
                values = [f"{before[name]:.4f}" if name in before else "", f"{float(metrics[name]):.4f}"]
                rows.append([label, *values])
        encoder = pl_module.encoder
        described = f"{type(encoder).__name__}, {encoder.width} dimensions, {type(pl_module.loss).__name__}"
        examples = trainer.global_step * trainer.accumulate_grad_batches * pl_module.data.batch_size
        figures = [("optimiser steps", f"{trainer.global_step:,}"), ("triplets trained on", f"{examples:,}")]
        return Closing(f"{described}\n{columns(rows)}\n", figures)


def columns(rows: list[list[str]]) -> str:
    """A table of text; all columns but the first stand to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append(f"  {first:<{widths[0]}}  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)
