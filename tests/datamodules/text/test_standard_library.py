import json
import sysconfig

import pytest

from datamodules.text import StandardLibrary
from run_store import UserError


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A folder that passes for the standard library."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    for name in [
        "ast.py",
        "json/decoder.py",
        "json/tool.py",
        "encodings/cp1250.py",
        "test/test_ast.py",
        "re/_parser.py",
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n" * 10)
    return tmp_path


def names(corpus):
    return [document.name for document in corpus.documents()]


def test_this_machines_library_is_enough_for_the_main_job():
    # 1.2 M tokens of MiniLM are about 4.4 M characters of source.
    assert sum(len(document.text) for document in StandardLibrary().documents()) > 4_800_000


def test_the_order_is_fixed_and_no_file_moves_another(library):
    before = names(StandardLibrary())
    assert sorted(before) == ["ast.py", "json/decoder.py", "json/tool.py", "re/_parser.py"]
    assert before == names(StandardLibrary())
    assert before != sorted(before)
    (library / "ast.py").unlink()
    assert names(StandardLibrary()) == [name for name in before if name != "ast.py"]


def test_leaves_out_what_is_installed_or_excluded(library):
    (library / "site-packages").mkdir()
    (library / "site-packages" / "numpy.py").write_text("x = 1\n")
    (library / "empty.py").write_text("\n")
    assert set(names(StandardLibrary(exclude=["json/*", "test/*"]))) == {
        "ast.py",
        "re/_parser.py",
        "encodings/cp1250.py",
    }


def test_cuts_long_files(library):
    (library / "long.py").write_text("x" * 1000)
    texts = {document.name: document.text for document in StandardLibrary(max_characters=40).documents()}
    assert texts["long.py"] == "x" * 40
    assert texts["ast.py"].startswith("# ast.py\n# ast.py")


def test_reads_files_of_other_encodings(library):
    (library / "latin.py").write_bytes("# -*- coding: latin-1 -*-\n# Löwis\n".encode("latin-1"))
    texts = {document.name: document.text for document in StandardLibrary().documents()}
    assert "L\ufffdwis" in texts["latin.py"]


def test_no_source_is_said(library):
    with pytest.raises(UserError, match=f"no Python source is left in {library}"):
        list(StandardLibrary(exclude=["*"]).documents())


def test_describes_its_settings_in_json():
    settings = StandardLibrary(max_characters=7, exclude=("a/*",)).describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["max_characters"] == 7
    assert settings["exclude"] == ["a/*"]
