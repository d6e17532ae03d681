import gc
import sys

import pytest

from cli import main as command_line
from cli.main import OWN_ROOM


@pytest.mark.parametrize("room", ["", "raise ImportError('no such thing')"], ids=["imported", "not_importable"])
def test_garbage_is_left_alone_while_a_verb_is_imported_and_looked_for_while_it_runs(tmp_path, monkeypatch, room):
    told = "def run(_):\n    return 10 * gc.isenabled() + while_imported\n"
    (tmp_path / "a_room.py").write_text(f"import gc\nwhile_imported = gc.isenabled()\n{room}\n{told}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(OWN_ROOM, "runs", "a_room")
    try:
        if room:
            with pytest.raises(ImportError, match="no such thing"):
                command_line(["runs"])
        else:
            assert command_line(["runs"]) == 10
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        sys.modules.pop("a_room", None)
