"""The corpus that is on every machine: the source code of Python's standard library."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

from datamodules.text.corpus import Corpus, Document
from run_store import UserError

# Tables teach an autoencoder nothing but their own rows, and tests repeat the code that they test; some distributions
# of Python leave the tests out besides, so the corpus would differ from one machine to the next.
TABLES_AND_TESTS = (
    "encodings/*",
    "pydoc_data/*",
    "_sysconfigdata*",
    "config-*",
    "html/entities.py",
    "msilib/*",
    "stringprep.py",
    "tkinter/constants.py",
    "test/*",
    "*/test/*",
    "*/tests/*",
    "*/idle_test/*",
    "_test*",
    "__phello__/*",
)


class StandardLibrary(Corpus):
    """The .py files of the running Python's standard library, each named by its path below the library's folder.

    The order is pseudo-random and fixed (by the hash of the name), so that any prefix is a fair sample of the whole.

    Args:
        max_characters: Longer files are cut here, so that no file dominates.
        exclude: Files left out, as patterns of `fnmatch` for the name; `*` matches slashes too.
    """

    def __init__(self, max_characters: PositiveInt = 40_000, exclude: Sequence[str] = TABLES_AND_TESTS) -> None:
        self.max_characters = max_characters
        self.exclude = list(exclude)

    def documents(self) -> Iterator[Document]:
        """Yields the files' texts.

        Raises:
            UserError: this Python comes without the source of its library, or `exclude` leaves nothing of it.
        """
        folder = Path(sysconfig.get_path("stdlib"))
        names = python_files(folder, self.exclude)
        if not names:
            raise UserError(f"no Python source is left in {folder}: loosen `exclude` or choose another corpus")
        for name in names:
            # A few files declare another encoding: a replaced letter in a comment matters less than a missing file.
            text = (folder / name).read_text(encoding="utf-8", errors="replace")[: self.max_characters]
            if text.strip():
                yield Document(name, text)

    def describe(self) -> dict[str, Any]:
        """Settings, and the version of Python, whose library changes with it."""
        return {
            "class": type(self).__name__,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "max_characters": self.max_characters,
            "exclude": self.exclude,
        }


def python_files(folder: Path, exclude: Sequence[str], prefix: str = "") -> list[str]:
    """Names below a folder of its .py files, in a pseudo-random order that the names alone decide; without what is
    installed beside a standard library, and without those whose name, behind `prefix`, a pattern of `fnmatch` matches.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.py")]
    kept = [
        name
        for name in names
        if not name.startswith(("site-packages/", "dist-packages/"))
        and not any(fnmatchcase(prefix + name, pattern) for pattern in exclude)
    ]
    return sorted(kept, key=lambda name: hashlib.sha256(name.encode()).digest())
