"""An explained ranking as one page of HTML that needs nothing else."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from explanations import Difference, Explanation
from reports.page_parts import as_json, parts, policy, style_and_script, when
from run_store import atomic_file

OWN = "reports.explanation.page"
STYLES = ("explanation.css", "narrow.css")
# in the order in which they are run
SCRIPTS = ("words.js", "texts.js", "documents.js", "versus.js", "app.js")


def write_page(explanation: Explanation, difference: Difference | None, path: Path) -> None:
    """Writes the page; an older one is replaced.

    Args:
        explanation: what it tells.
        difference: the two documents that it compares at first; any two can be chosen on it.
        path: of the page.

    Raises:
        UserError: it cannot be written there.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(page_of(explanation, difference), encoding="utf-8")


def page_of(explanation: Explanation, difference: Difference | None = None) -> str:
    """The whole page."""
    style, script = style_and_script(OWN, STYLES, SCRIPTS)
    versus = None if difference is None else [difference.first, difference.second]
    return Template(parts(OWN, ["page.html"])).substitute(
        policy=policy(style, script),
        style=style,
        script=script,
        query=escape(explanation.query),
        told=as_json({**asdict(explanation), "versus": versus, "written": when()}),
    )
