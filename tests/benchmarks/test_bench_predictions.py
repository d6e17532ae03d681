"""What predictions cost, run as a person runs it."""

import pytest


@pytest.mark.slow
def test_the_share_is_that_of_the_times_that_are_told(bench):
    told = bench("bench_predictions")
    embedder = told.json["embedder"]
    seconds = embedder["predictions_ms_an_epoch"] / 1e3
    assert embedder["share"] == pytest.approx(seconds / embedder["seconds_an_epoch"])
    assert 0 < seconds < embedder["seconds_an_epoch"]
    # the folder has no store
    assert told.json["autoencoder"] is None
    assert "python main.py predict --config configs/extract.yaml" in told.stderr
