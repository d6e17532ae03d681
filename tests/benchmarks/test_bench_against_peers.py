"""Our trainer and the rivals' on the same rows, run as a person runs it."""

import pytest

pytestmark = pytest.mark.slow


def test_the_learning_rate_with_the_least_fvu_in_validation_is_the_one_of_every_seed(bench):
    told = bench("bench_against_peers", "--data", "synthetic", "--rates", "1e-5", "1e-2", "--seeds", "2")
    ours = told.json["results"]["synthetic"]["fulgurite"]
    assert ours["lr"] == 1e-2
    assert ours["rates"]["0.01"] < ours["rates"]["1e-05"]
    assert ours["seeds"][0] != ours["seeds"][1]
    assert told.table[-1][:2] == ["fulgurite", "0.01"]


@pytest.mark.peers
def test_every_trainer_learns_from_the_same_rows(bench, store, peers_python):
    told = bench("bench_against_peers", "--store", str(store), peers=peers_python)
    for data, k in {"synthetic": 2, "real": 3}.items():
        trainers = told.json["results"][data]
        assert list(trainers) == ["fulgurite", "saelens", "sparsify", "sparsify_adam"]
        for name, found in trainers.items():
            (scores,) = found["seeds"]
            assert scores["l0"] == pytest.approx(k, rel=0.05), name
            assert scores["fvu"] < 0.9, name
            assert ("recovered" in scores) == (data == "synthetic")
