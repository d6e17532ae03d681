from __future__ import annotations

from collections.abc import Callable

import pytest

from remote_files import Retries
from run_store import UserError

URL = "s3://me:secret@bucket/store/file"


class Status(Exception):  # noqa: N818
    def __init__(self, status: int) -> None:
        super().__init__(f"the server at ftp://me:secret@host said {status}")
        self.status = status


def failing(*errors: BaseException) -> Callable[[], str]:
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return action


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def retries(pauses: list[float]) -> Retries:
    return Retries(tries=4, pause=1.0, sleep=pauses.append)


def test_what_may_pass_is_tried_again_with_pauses_that_double(retries: Retries, pauses: list[float]) -> None:
    assert retries(failing(Status(503), TimeoutError(), ConnectionError()), URL) == "done"
    assert [round(pause / 2**number, 6) for number, pause in enumerate(pauses)] == [
        pytest.approx(0.75, abs=0.25) for _ in range(3)
    ]


def test_the_last_failure_is_one_sentence_without_secrets(retries: Retries, pauses: list[float]) -> None:
    with pytest.raises(UserError, match=r"^s3://bucket/store/file could not be written in 4 tries \(Status: ") as told:
        retries(failing(*(Status(503) for _ in range(9))), URL, "written")
    assert "secret" not in str(told.value)
    assert len(pauses) == 3


@pytest.mark.parametrize("error", [PermissionError("no"), Status(401), Status(403)])
def test_what_is_forbidden_is_not_tried_again(retries: Retries, pauses: list[float], error: Exception) -> None:
    with pytest.raises(UserError, match=r"^s3://bucket/store/file may not be read \(.*\): give this machine"):
        retries(failing(error), URL)
    assert not pauses


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), UserError("told"), KeyboardInterrupt()])
def test_what_stays_so_comes_through(retries: Retries, pauses: list[float], error: BaseException) -> None:
    with pytest.raises(type(error)):
        retries(failing(error), URL)
    assert not pauses
