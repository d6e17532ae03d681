"""Two processes against one, run as a person runs it."""

import pytest


@pytest.mark.slow
def test_the_loss_is_that_of_the_steps_that_are_told(bench):
    told = bench("bench_ranks").json
    one, two = told["milliseconds"].values()
    assert one > 0
    assert two > 0
    low, high = told["loss"]["quartiles"]
    assert low <= told["loss"]["median"] <= high < 1
