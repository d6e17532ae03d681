"""The benchmark of the sparse index compares what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.bench_sparse_index import drawn, main


def test_drawn_texts_have_different_latents_of_which_some_are_frequent():
    vectors = drawn(500, 8, 64, 0.5, np.random.default_rng(0))
    rows = vectors.latents.reshape(500, 8)
    assert all(len(set(row)) == 8 for row in rows.tolist())
    counts = np.bincount(vectors.latents, minlength=64)
    assert counts[0] > 3 * counts[32:].mean()
    assert np.linalg.norm(vectors.values.reshape(500, 8), axis=1) == pytest.approx(np.ones(500), rel=1e-5)


def test_it_prints_json(capsys):
    main(["--documents", "30", "60", "--kept", "4", "--queries", "2", "--width", "8", "--d_sae", "32"])
    printed = json.loads(capsys.readouterr().out)
    assert [row["documents"] for row in printed["rows"]] == [30, 60]
    row = printed["rows"][1]
    assert row["bytes_to_dense"] == pytest.approx((33 * 8 + 60 * 4 * 6) / (60 * 8 * 4))
    assert row["dense_to_sparse"] == pytest.approx(row["dense_seconds"] / row["seconds"])
