from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.checkpoint_files import CheckpointParts
from lightning_modules.sharded_files import OwnRows, Part, mapped, put_back, read_rows, row_files, take_apart
from run_store import UserError

WHOLE = torch.arange(24.0).view(12, 2)
PLACE = '["optimizer_states", 0, "state", 0, "exp_avg"]'


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """By four ranks, the last of them first."""
    for rank in (3, 2, 1, 0):
        own = WHOLE[3 * rank : 3 * rank + 3]
        OwnRows({"W_enc": own, "b_enc": own[:, 0]}, {PLACE: -own}, Part(rank, 4)).write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 6, 12])
def test_any_number_of_ranks_that_divides_the_rows_reads_them(saved: Path, ranks: int) -> None:
    assert len(row_files(saved, "model")) == len(row_files(saved, "state")) == 4
    parts = [read_rows(saved, "model", Part(rank, ranks)) for rank in range(ranks)]
    assert torch.equal(torch.cat([part["W_enc"] for part in parts]), WHOLE)
    assert torch.equal(torch.cat([part["b_enc"] for part in parts]), WHOLE[:, 0])
    states = [read_rows(saved, "state", Part(rank, ranks)) for rank in range(ranks)]
    assert torch.equal(torch.cat([state[PLACE] for state in states]), -WHOLE)


def test_other_numbers_and_damaged_files_are_told_of(saved: Path) -> None:
    with pytest.raises(UserError, match=r"W_enc has 12 rows, which 5 ranks cannot share evenly: resume on"):
        read_rows(saved, "model", Part(0, 5))
    (saved / "model.rows-2-of-4.safetensors").write_bytes(b"no such thing")
    with pytest.raises(UserError, match=r"model\.rows-2-of-4\.safetensors is missing or damaged"):
        read_rows(saved, "model")


def test_what_is_cut_goes_back_to_where_it_was() -> None:
    rest: dict[str, Any] = {
        "optimizer_states": [{"state": {0: {"exp_avg": None, "step": 3}}}],
        "others": ([], None, {}),
    }
    whole = put_back(rest, {PLACE: WHOLE})
    assert whole["optimizer_states"][0]["state"][0]["exp_avg"] is WHOLE
    assert whole["others"] == ([], None, {})
    assert rest["optimizer_states"][0]["state"][0]["exp_avg"] is None
    paths: list[Any] = []
    mapped(rest, lambda path, value: paths.append(path))
    assert paths[:2] == [["optimizer_states", 0, "state", 0, key] for key in ("exp_avg", "step")]


def test_a_checkpoint_without_such_tensors_is_left_as_it_is() -> None:
    rest = {"global_step": 3, "optimizer_states": [{"state": {0: {"exp_avg": WHOLE}}}]}
    weights, left, rows = take_apart({"W_enc": WHOLE}, rest)
    assert rows is None
    assert weights == {"W_enc": WHOLE}
    assert left["optimizer_states"][0]["state"][0]["exp_avg"] is WHOLE
    assert CheckpointParts.of({"state_dict": {"W_enc": WHOLE}, **rest}).rows is None
