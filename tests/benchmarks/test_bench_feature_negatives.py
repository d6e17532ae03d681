"""The benchmark of guided negatives compares what it says."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bench_feature_negatives import PLAIN, arms, parser, told


def test_arms_differ_in_what_latents_decide_alone():
    options = parser().parse_args(["--most_overlap", "0.1"])
    found = arms(options)
    plain, few, least = (found[name] for name in (PLAIN, "few_false", "least_overlap"))
    assert (few.most_overlap, few.sampling) == (0.1, "hardest")
    assert (least.most_overlap, least.sampling) == (None, "least_overlap")
    assert {(arm.count, arm.first_rank, arm.last_rank, arm.max_share) for arm in (plain, few, least)} == {
        (1, 0, 30, 0.95)
    }
    assert not plain.compares_latents


def test_differences_are_of_queries_averaged_over_the_seeds():
    scores = {PLAIN: [torch.tensor([0.0, 0.5]), torch.tensor([0.2, 0.5])]}
    scores["few_false"] = [torch.tensor([0.4, 0.5]), torch.tensor([0.2, 0.9])]
    found = told(scores, {"few_false": [1.0, 3.0]}, "few_false")
    assert found["ndcg@10"] == pytest.approx(0.5)
    assert found["to_plain"] == pytest.approx(0.2)
    assert found["to_plain_low"] == pytest.approx(0.2)
    assert found["seconds"] == 2
    assert found["spread"] == pytest.approx(torch.tensor([0.45, 0.55]).std().item())
