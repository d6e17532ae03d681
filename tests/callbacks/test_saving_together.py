"""Several processes that write one checkpoint; what goes wrong in one is a real failure there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.saving_together import SavingTogether
from lightning_modules.checkpoint_files import CheckpointParts, read_checkpoint
from lightning_modules.sharded_files import OwnRows, Part
from run_store import UserError


def parts_of(rank: int, bad: int | None = None) -> CheckpointParts:
    """Of the rows of two ranks; those of a bad one cannot be written, since they share memory."""
    rows = torch.full((2, 3), float(rank))
    weights = {"W_enc": rows, "W_dec": rows} if rank == bad else {"W_enc": rows, "W_dec": rows.clone()}
    own = OwnRows(weights, {}, Part(rank % 2, 2))
    return CheckpointParts({"b_dec": torch.zeros(3)}, {}, {"global_step": 7, "epoch": 1}, own)


@pytest.mark.slow
def test_a_save_is_whole_or_fails_on_all_ranks(on_ranks: Callable[..., list[Any]], tmp_path: Path) -> None:
    def save(rank: int) -> list[str]:
        together, failures = SavingTogether(), []
        for number, bad in enumerate((1, 0, None)):
            try:
                together.save(parts_of(rank, bad), tmp_path / f"step-{number:08d}", {})
            except UserError as error:
                failures.append(str(error))
        return failures

    for failures in on_ranks(save, 3):
        assert len(failures) == 2
        assert "rank 1 could not save its latents" in failures[0]
        assert "rank 0 could not save its latents" in failures[1]
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000002"]
    checkpoint = read_checkpoint(tmp_path / "step-00000002")
    assert checkpoint["global_step"] == 7
    assert checkpoint["state_dict"]["W_dec"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
    assert read_checkpoint(tmp_path / "step-00000002", part=Part(1, 4))["state_dict"]["W_enc"].tolist() == [[0.0] * 3]
