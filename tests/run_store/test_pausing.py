import pytest

from run_store import UserError
from run_store.pausing import is_pause_requested, request_pause, withdraw_pause


def test_a_request_stands_until_it_is_withdrawn(tmp_path):
    assert not is_pause_requested(tmp_path)
    request_pause(tmp_path)
    request_pause(tmp_path)
    assert is_pause_requested(tmp_path)
    withdraw_pause(tmp_path)
    withdraw_pause(tmp_path)
    assert not is_pause_requested(tmp_path)


def test_a_run_that_is_gone_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be asked to pause"):
        request_pause(tmp_path / "gone")
