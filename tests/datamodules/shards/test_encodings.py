import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards import ActivationStore, StoreWriter
from datamodules.shards.encodings import SCALE_BLOCK, BlockInt8
from run_store import UserError


def encoded(rows):
    """Codes and scales of rows [n, d]."""
    encoding = BlockInt8()
    columns = {
        key: torch.full((len(rows), width), 77, dtype=dtype)
        for key, (dtype, width) in encoding.columns(rows.shape[1]).items()
    }
    encoding.encode(rows, columns)
    return columns["activations"], columns["scales"]


def decoded(codes, scales):
    """Value by value, as the format says."""
    rows = torch.empty(codes.shape, dtype=torch.float64)
    for row in range(codes.shape[0]):
        for column in range(codes.shape[1]):
            rows[row, column] = float(codes[row, column]) * float(scales[row, column // SCALE_BLOCK])
    return rows


def store_of(folder, rows, shard_bytes=2000):
    numbers = torch.arange(len(rows))
    with StoreWriter(folder, {"layer": rows.shape[1]}, "int8", shard_bytes) as writer:
        writer.append({"layer": rows}, numbers, torch.zeros_like(numbers), numbers)
        writer.finish({}, ["document"])
    return ActivationStore(folder)


@pytest.mark.parametrize("d", [1, 63, 64, 65, 128, 200])
def test_int8_rows_read_as_the_format_says(tmp_path, d):
    rows = torch.randn(50, d) * torch.logspace(-3, 3, 50)[:, None]
    store = store_of(tmp_path, rows)
    assert len(store.manifest.shards) > 1 or d == 1
    wanted = torch.randperm(50)
    expected = decoded(*encoded(rows))[wanted]
    assert torch.equal(store.read(wanted)[0], expected.float())
    assert torch.equal(store.read(wanted, dtype=None)[0], expected.float())
    assert torch.equal(store.read(wanted, dtype=torch.bfloat16)[0], expected.bfloat16())


@given(
    d=st.integers(1, 150),
    exponent=st.integers(-30, 37),
    seed=st.integers(0, 1000),
    outlier=st.floats(1, 1000),
)
def test_no_value_is_off_by_more_than_half_a_scale(d, exponent, seed, outlier):
    rows = torch.randn(4, d, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    rows[0, 0] *= outlier
    rows.clamp_(-3e38, 3e38)
    codes, scales = encoded(rows)
    limits = scales.double().repeat_interleave(SCALE_BLOCK, dim=1)[:, :d] / 2
    assert ((decoded(codes, scales) - rows.double()).abs() <= limits * (1 + 1e-6)).all()
    # and the scale is no larger than it must be
    largest = torch.nn.functional.pad(rows, (0, -d % SCALE_BLOCK)).unflatten(1, (-1, SCALE_BLOCK)).abs().amax(2)
    assert (scales.double() * 127 <= largest.double() * (1 + 2**-8)).all()


def test_blocks_of_zeros_are_exact(tmp_path):
    rows = torch.randn(20, 192)
    rows[:, 64:128] = 0
    rows[3] = 0
    (read,) = store_of(tmp_path, rows).read(torch.arange(20))
    assert not read[:, 64:128].any()
    assert not read[3].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    rows = torch.randn(20, 70)
    rows[7, 66] = value
    with pytest.raises(UserError, match=r"hook point layer at position 7 of document number 0 are NaN or infinite"):
        store_of(tmp_path, rows)
    assert list(tmp_path.iterdir()) == []


def test_what_int8_loses_of_normal_rows_is_what_theory_says(tmp_path):
    """Rounding to steps of s loses s² / 12; the largest of 64 normal values gives s."""
    rows = torch.randn(2000, 384)
    (read,) = store_of(tmp_path, rows, 10**6).read(torch.arange(2000))
    steps = rows.unflatten(1, (6, 64)).abs().amax(2) / 127
    expected = (steps.square() / 12).mean()
    assert torch.isclose((read - rows).square().mean(), expected, rtol=0.03)


def test_a_row_takes_a_byte_a_value_and_two_a_block(tmp_path):
    store = store_of(tmp_path, torch.randn(100, 384), 396 * 40)
    assert store.manifest.hook_points["layer"].row_bytes == 384 + 2 * 6
    assert [shard.rows for shard in store.manifest.shards] == [40, 40, 20]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["hook_points"]["layer"] == {"d": 384, "dtype": "int8", "scale_block": SCALE_BLOCK}


def test_another_size_of_blocks_is_refused(tmp_path):
    store_of(tmp_path, torch.randn(10, 64))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["hook_points"]["layer"]["scale_block"] = 32
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="scale_block 32 is not 64"):
        ActivationStore(tmp_path)
