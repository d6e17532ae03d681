"""The dashboard of an autoencoder as a folder of files that needs no server: index.html, and data/ beside it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from lightning_modules.metrics import DENSE_ABOVE
from reports.dashboard.data import file_of, index_of, tokens_of
from reports.dashboard.overview import overview
from reports.dashboard.subject import Subject
from reports.page_parts import as_json, parts, policy, source_of, style_and_script, when
from run_store import UserError, atomic_file

PAGE = "index.html"
DATA = "data"
OWN = "reports.dashboard.page"
STYLES = ("dashboard.css", "latent.css", "narrow.css")
# in the order in which they are run
SCRIPTS = ("data.js", "contexts.js", "charts.js", "latent.js", "search.js", "latents.js", "map.js", "app.js")


def write_site(subject: Subject, folder: Path, on_progress: Callable[[int, int], None] = lambda done, all: None) -> int:
    """Writes the dashboard; an older one in the folder is replaced.

    Args:
        subject: what it is about.
        folder: where.
        on_progress: told the files that are done and those that there are.

    Returns:
        Bytes of all files.

    Raises:
        UserError: there is something else in the folder, or it cannot be written.
    """
    refuse_other_content(folder)
    index = index_of(subject, DENSE_ABOVE)
    files, size = index["files"], 0
    for number in range(files):
        size += _write(folder / DATA / file_name(number), _script(number, file_of(subject, number)))
        on_progress(number + 1, files)
    size += _write(folder / DATA / "tokens.js", _script("tokens", tokens_of(subject)))
    for left_over in set((folder / DATA).glob("*.js")) - {folder / DATA / file_name(n) for n in range(files)}:
        if left_over.name != "tokens.js":
            left_over.unlink()
    # last: whoever opens it finds the rest
    return size + _write(folder / PAGE, page_of(subject, index))


def refuse_other_content(folder: Path) -> None:
    """Raises:
    UserError: the folder holds something that is no dashboard.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / DATA).is_dir())):
        raise UserError(f"{folder} is there and holds something else than a dashboard: choose another --out")


def file_name(number: int) -> str:
    """Of the n-th file of latents."""
    return f"latents-{number:04d}.js"


def page_of(subject: Subject, index: dict[str, Any]) -> str:
    """index.html."""
    style, script = style_and_script(OWN, STYLES, SCRIPTS)
    allowed = policy(style, script, f"script-src {source_of(script)} 'self' file:", "trusted-types data-files")
    return Template(parts(OWN, ["page.html"])).substitute(
        policy=allowed,
        style=style,
        script=script,
        title=escape(subject.name),
        written=escape(when()),
        overview=overview(subject),
        index=as_json(index),
    )


def _script(name: int | str, content: dict[str, Any]) -> str:
    return f"receive({as_json(name)},{as_json(content)})\n"


def _write(path: Path, text: str) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path.stat().st_size
