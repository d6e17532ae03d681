"""What a sweep costs in single runs, run as a person runs it."""

import pytest


@pytest.mark.slow
def test_the_ratio_is_that_of_the_steps_that_are_told(bench):
    told = bench("bench_sweep").json
    *single, sweep = told["step_ms"].values()
    assert len(single) == 2
    assert told["ratio"] == pytest.approx(sweep / (sum(single) / 2))
