"""CSV of several attempts."""

from __future__ import annotations

from pathlib import Path

from tracking import RunCSVLogger


def test_an_attempt_leaves_the_curves_of_the_one_before(tmp_path: Path) -> None:
    for loss in (1.0, 0.5):
        logger = RunCSVLogger(str(tmp_path), "sae", "v1")
        logger.log_metrics({"loss": loss}, 3)
        logger.finalize("success")
        assert Path(logger.log_dir) == tmp_path / "sae" / "v1"
    for number, loss in ((1, 1.0), (2, 0.5)):
        text = (tmp_path / "sae" / "v1" / "csv" / str(number) / "metrics.csv").read_text()
        assert text.split() == ["loss,step", f"{loss},3"]
