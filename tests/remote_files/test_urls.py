from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from remote_files import check_url, is_url, shown
from run_store import UserError


def test_a_protocol_that_nothing_speaks_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^run\.backup nothing://there cannot be reached \(.*\): choose"):
        check_url("nothing://there", "run.backup")
    check_url("memory://there", "run.backup")
    check_url("relative/folder", "run.backup")


def test_passwords_are_not_shown() -> None:
    assert shown("ftp://me:secret@host/a@b") == "ftp://host/a@b"
    assert shown("s3://bucket/runs") == "s3://bucket/runs"
    assert fsspec.utils.get_protocol(shown("ftp://me:secret@host")) == "ftp"


@pytest.mark.parametrize("place", ["s3://bucket/store", "file:///x", "memory://", "simplecache::s3://bucket/store"])
def test_a_url_is_told_from_a_path(place: str) -> None:
    assert is_url(place)


@pytest.mark.parametrize("place", ["stores/x", "/stores/x", "C:/stores", "a:b", Path("s3:/bucket"), "odd//name://x"])
def test_a_path_is_told_from_a_url(place: str | Path) -> None:
    assert not is_url(place)
