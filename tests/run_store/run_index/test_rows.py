from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from run_store.run_index.folders import identities_below, place_of, places_below
from run_store.run_index.rows import COLUMNS, IndexedRun, RunSummary, stamp_of, to_row, to_run

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
IDENTITY = "spec-0123abcd_exec-0123abcd"


@given(st.builds(RunSummary, id=TEXT, note=TEXT, step=st.integers(0, 10**15), tags=st.lists(TEXT).map(tuple),
                 metrics=st.dictionaries(TEXT, st.floats())))  # fmt: skip
def test_a_row_is_read_back(summary: RunSummary) -> None:
    row = to_row("sae/x/v1", "stamp", 7, summary)
    assert len(row) == len(COLUMNS)
    assert str(to_run(row)) == str(IndexedRun("sae/x/v1", "stamp", summary))  # NaN equals nothing


def test_a_stamp_tells_changes_and_absence(tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    seen = [stamp_of(folder)]
    assert seen == [("", 0)]
    folder.mkdir()
    seen.append(stamp_of(folder))
    (folder / "metadata.json").write_text("{}")
    seen.append(stamp_of(folder))
    (folder / "labels.json").write_text("{}")
    seen.append(stamp_of(folder))
    os.utime(folder / "labels.json", ns=(1, 2 * 10**18))
    seen.append(stamp_of(folder))
    assert len({stamp for stamp, _ in seen}) == len(seen)
    assert seen[-1][1] == 2 * 10**18


def test_places(tmp_path: Path) -> None:
    for path in (f"sae/{IDENTITY}/v1", f"sae/{IDENTITY}/v10", f"sae/{IDENTITY}/v1.7.partial", "sae/other/v1"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "file").touch()
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    os.makedirs(os.fsencode(tmp_path) + b"/\xff/" + IDENTITY.encode())
    assert list(identities_below(tmp_path)) == [f"sae/{IDENTITY}"]
    assert list(places_below(tmp_path)) == [f"sae/{IDENTITY}/v1", f"sae/{IDENTITY}/v10"]
    assert list(places_below(tmp_path / "missing")) == []
    assert place_of(tmp_path / "sae" / IDENTITY / "v10") == (tmp_path, f"sae/{IDENTITY}/v10")
    for elsewhere in (tmp_path, tmp_path / "sae" / IDENTITY / "x", tmp_path / "sae" / "other" / "v1"):
        assert place_of(elsewhere) is None
