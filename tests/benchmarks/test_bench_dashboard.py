"""What a pass for the dashboard costs, run as a person runs it."""

import pytest


@pytest.mark.slow
def test_rates_of_reading_encoding_and_gathering_are_told(bench):
    told = bench("bench_dashboard").json
    reading, encoding, gathering = told["rows_per_second"].values()
    assert reading > encoding > gathering
    assert told["by_the_clock"]["of_reading"] == pytest.approx(gathering / reading, abs=2e-3)
    assert told["by_the_clock"]["of_encoding"] == pytest.approx(gathering / encoding, abs=2e-3)
