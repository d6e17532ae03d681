import csv

import pytest
from torch.utils.tensorboard import SummaryWriter

from reports.training_curves import MOST_POINTS, Curve, read_curves


def write_events(folder, points):
    with SummaryWriter(str(folder)) as writer:
        for step, value in points:
            writer.add_scalar("k3/val/fvu", value, step)


def test_curves_of_a_member_are_read_from_the_events_of_all_attempts(tmp_path):
    write_events(tmp_path / "a", [(1, 0.5), (2, float("nan")), (3, 0.25)])
    write_events(tmp_path / "b", [(3, 0.125), (4, 0.0625)])
    found = read_curves(tmp_path, ["val/l0", "val/fvu"], "k3/")
    assert found == [Curve("val/fvu", (1, 3, 4), (0.5, 0.125, 0.0625))]


def test_a_long_curve_is_thinned_out_and_ends_where_it_did(tmp_path):
    write_events(tmp_path, [(step, step) for step in range(2 * MOST_POINTS + 1)])
    (curve,) = read_curves(tmp_path, ["val/fvu"], "k3/")
    assert len(curve.steps) <= MOST_POINTS
    assert curve.steps[-1] == 2 * MOST_POINTS


def test_without_events_the_table_of_the_csv_logger_is_read(tmp_path):
    (tmp_path / "csv" / "1").mkdir(parents=True)
    with (tmp_path / "csv" / "1" / "metrics.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["step", "val/fvu", "epoch"])
        rows.writeheader()
        rows.writerows([{"step": 10, "val/fvu": 0.5}, {"step": 20}, {"step": 30, "val/fvu": 0.25}])
    assert read_curves(tmp_path, ["val/fvu"]) == [Curve("val/fvu", (10, 30), (0.5, 0.25))]


def test_a_folder_without_anything_has_no_curves(tmp_path):
    assert read_curves(tmp_path, ["val/fvu"]) == []


def test_another_unit():
    assert Curve("dead", (1,), (0.25,)).scaled(100).values == (pytest.approx(25),)
