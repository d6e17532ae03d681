"""The bench of embedding fine-tuning, run as a person runs it."""

import pytest

pytestmark = pytest.mark.slow

QUALITY = ("--quality", "--other", "numpy", "--triplets", "64", "--queries", "40")


def test_a_ratio_is_that_of_the_two_speeds(bench):
    names = ["fulgurite_fp32", "fulgurite_gradient_cache"]
    told = bench("bench_embedder", "--only", *names)
    found = told.json["peer_in_fp32"]
    assert list(found["milliseconds"]) == names
    ((name, (low, middle, high)),) = found["ratios"].items()
    assert name == "fulgurite_gradient_cache / fulgurite_fp32"
    assert 0 < low <= middle <= high
    peaks = found["peak_mb"]
    assert found["peak_ratios"][name] == peaks["fulgurite_gradient_cache"] / peaks["fulgurite_fp32"]
    assert [row[0] for row in told.table] == ["ms a step", *names, "times as fast (quartiles)", name]


def test_a_difference_of_quality_is_that_of_the_scores(bench):
    told = bench("bench_embedder", *QUALITY).json
    assert list(told["ndcg"]) == ["unseen modules", "numpy"]
    assert any(ndcg["fulgurite"][0] != ndcg["base"][0] for ndcg in told["ndcg"].values())
    for task, ndcg in told["ndcg"].items():
        assert list(ndcg) == ["base", "fulgurite"]
        assert len(ndcg["base"]) == 1
        assert len(ndcg["fulgurite"]) == 2
        mean, low, high = told["differences"]["fulgurite − base"][task]
        assert mean == pytest.approx(sum(ndcg["fulgurite"]) / 2 - ndcg["base"][0], abs=1e-6)
        assert low <= mean <= high


@pytest.mark.peers
def test_the_peer_takes_turns_and_trains_on_the_same_triplets(bench, peers_python):
    names = ["fulgurite_fp32", "peer_fp32"]
    found = bench("bench_embedder", "--only", *names, peers=peers_python).json["peer_in_fp32"]
    assert list(found["ratios"]) == ["fulgurite_fp32 / peer_fp32"]
    told = bench("bench_embedder", *QUALITY, "--seeds", "1", peers=peers_python).json
    assert any(ndcg["sentence_transformers"] != ndcg["base"] for ndcg in told["ndcg"].values())
    for ndcg in told["ndcg"].values():
        assert ndcg["sentence_transformers"][0] == pytest.approx(ndcg["fulgurite"][0], abs=0.1)
