"""Streams that a shell closed, that nobody reads on, or that cannot show every character."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITES = """
import sys
from cli.streams import settle_streams
settle_streams(outlive_readers=True)
for line in range(20_000):
    print("a line that nobody reads")
print("on stderr", file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""


def test_what_trains_outlives_its_reader(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, tmp_path / "end"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"on stderr\n"
    assert process.wait(60) == 0
    assert (tmp_path / "end").read_text() == "done"


@pytest.mark.skipif(os.name != "posix", reason="a shell that closes streams")
def test_closed_streams_lead_nowhere_and_give_no_file_their_number(tmp_path):
    code = (
        "import os, sys; from cli.streams import settle_streams; settle_streams(outlive_readers=False)\n"
        "kept = open(sys.argv[1], 'w'); os.write(1, b'from C'); os.write(2, b'from C'); print('said'); kept.close()"
    )
    command = '"$0" -c "$1" "$2" <&- >&- 2>&-'
    end = subprocess.run(["sh", "-c", command, sys.executable, code, tmp_path / "kept"], cwd=ROOT, timeout=60)
    assert end.returncode == 0
    assert (tmp_path / "kept").read_bytes() == b""


def test_a_character_that_the_encoding_lacks_is_an_escape(tmp_path):
    code = "from cli.streams import settle_streams; settle_streams(outlive_readers=False); print('a cut \\u2026')"
    said = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=60
    )
    assert said.strip() == b"a cut \\u2026"
