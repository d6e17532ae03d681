"""Rows are a function of their number and the settings: what else is asked changes nothing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.synthetic import CorrelatedGroups, EndlessOrder, FeatureSettings, Forest, SyntheticStream
from run_store import sha256_of

ROOT = Path(__file__).parents[3]
SETTINGS = FeatureSettings(
    d=8, count=24, mean_l0=3.0, noise=0.1, correlation=CorrelatedGroups(2, 3), hierarchy=Forest(2, 2), seed=5
)
STREAM = SyntheticStream(SETTINGS)
FIRST = torch.arange(1500)
ROWS = STREAM.read(FIRST)[0]


@given(st.lists(st.integers(0, 1499), min_size=1, max_size=40))
def test_a_row_is_the_same_whatever_is_read_with_it(rows):
    asked = torch.tensor(rows)
    assert torch.equal(STREAM.read(asked)[0], ROWS[asked])
    assert torch.equal(STREAM.codes(asked), STREAM.codes(FIRST[:1500])[asked])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_another_process_with_another_number_of_threads(tmp_path):
    program = (
        "import torch; torch.set_num_threads(1); from datamodules.synthetic import *; "
        f"s = SyntheticStream({SETTINGS!r}); s.read(torch.arange(1500))[0].numpy().tofile({str(tmp_path / 'a')!r})"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    ROWS.numpy().tofile(tmp_path / "b")
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")


@pytest.mark.parametrize("change", [{"seed": 6}, {"noise": 0.2}, {"mean_l0": 3.5}, {"exponent": 0.9}])
def test_other_settings_give_other_rows(change):
    assert not torch.equal(SyntheticStream(replace(SETTINGS, **change)).read(FIRST[:50])[0], ROWS[:50])


def test_rows_far_apart_and_epochs_differ():
    far = STREAM.read(torch.arange(10**12, 10**12 + 300))[0]
    assert torch.cat([far, ROWS]).unique(dim=0).shape[0] == 1800
    order = EndlessOrder(first=40, size=100, seed=5)
    epochs = torch.cat([order.rows(epoch, 0, 100) for epoch in range(3)])
    assert torch.equal(epochs, torch.arange(40, 340))
