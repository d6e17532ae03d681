"""The processes of a search, with verbs that need no torch."""

import os
import signal
import threading
import time

import pytest

from search.children import SearchStopped, carry_out


def test_output_and_exit_code_are_those_of_the_command(tmp_path):
    log = tmp_path / "logs" / "one.log"
    assert carry_out(["runs", "list", "--folder", str(tmp_path)], log) == 0
    assert carry_out(["runs", "lst"], log) == 2
    assert log.read_text().splitlines()[0] == f"none of 0 runs in {tmp_path}"
    assert "there is no verb runs 'lst'" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_waited_for_and_handled_as_before_afterwards(tmp_path, number):
    log = tmp_path / "log"
    before = signal.getsignal(number)

    def interrupt():
        while not log.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SearchStopped) as stopped:
        carry_out(["runs", "list", "--folder", str(tmp_path)], log)
    thread.join()
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
