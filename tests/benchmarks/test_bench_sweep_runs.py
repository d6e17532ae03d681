"""What a sweep costs in single runs of the main job, run as a person runs it."""

import pytest


@pytest.mark.slow
def test_the_ratios_are_those_of_the_seconds_that_are_told(bench):
    told = bench("bench_sweep_runs").json
    *single, sweep = told["seconds"].values()
    mean, extraction = sum(single) / len(single), told["extraction_seconds"]
    assert len(single) == 2
    assert told["ratio"] == pytest.approx(sweep / mean)
    assert told["ratio_with_extraction"] == pytest.approx((extraction + sweep) / (extraction + mean))
