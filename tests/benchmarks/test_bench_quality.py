"""The bench of quality at equal L0, run as a person runs it."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_every_variant_is_measured_at_every_l0_and_drawn(bench, store, tmp_path):
    from benchmarks.training import overlays

    told = bench("bench_quality", "--store", str(store), "--picture", str(tmp_path / "quality.svg"))
    assert set(told.json["results"]) == {"synthetic", "real"}
    for of_variant in told.json["results"].values():
        assert list(of_variant) == overlays()
        assert all(len(points) == 2 and 0 < point["fvu"] < 2 for points in of_variant.values() for point in points)
        # a k that was asked for is the L0 that came
        assert [point["l0"] for point in of_variant["topk"]] == pytest.approx([2, 4], abs=0.1)
    picture = (tmp_path / "quality.svg").read_text()
    assert all(f">{name}<" in picture for name in overlays())


def test_an_interrupted_bench_goes_on_where_it_was(bench, tmp_path):
    results = tmp_path / "results.json"
    arguments = ("--data", "synthetic", "--variants", "topk", "--results", str(results))
    bench("bench_quality", *arguments, "--l0", "2")
    kept = json.loads(results.read_text())
    kept["scores"]["synthetic/topk/2"]["fvu"] = 0.125
    results.write_text(json.dumps(kept))
    points = bench("bench_quality", *arguments, "--l0", "2", "4").json["results"]["synthetic"]["topk"]
    assert points[0]["fvu"] == 0.125
    assert points[1]["l0"] == pytest.approx(4, abs=0.1)


def test_without_a_store_the_bench_says_how_to_make_one_and_measures_the_rest(bench):
    told = bench("bench_quality", "--variants", "topk", "--l0", "2")
    assert "`python main.py predict --config configs/extract.yaml` makes stores/minilm-layer3" in told.stderr
    assert list(told.json["results"]) == ["synthetic"]
