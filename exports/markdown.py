"""Pieces of a model card in Markdown, whatever the model is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from run_store.record import RunRecord


def front_matter(fields: Mapping[str, Any]) -> str:
    """The head that model hubs read; what is not known is left out."""
    known = {name: value for name, value in fields.items() if value not in (None, "", {}, [])}
    return f"---\n{yaml.safe_dump(known, sort_keys=False)}---\n"


def table(rows: Mapping[str, Any]) -> str:
    """Two columns, a name and its value; what is not known is left out."""
    known = {name: value for name, value in rows.items() if value not in (None, "", {}, [])}
    return columns(("", ""), list(known.items()))


def columns(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table, or a sentence in place of an empty one."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    if not lines:
        return "Not known.\n"
    titles = list(titles)
    head = "| | |" if not any(titles) else f"| {' | '.join(titles)} |"
    return "\n".join([head, "|" + " --- |" * len(titles), *lines, ""])


def run_section(record: RunRecord | None) -> Iterable[str]:
    """What run has trained the model and by what settings; nothing where there is no run."""
    if record is None:
        return
    git = record.git
    yield "## Training\n"
    yield table(
        {
            "run": f"{record.name}, {record.id}",
            "ended": record.ended,
            "steps": f"{record.progress.step:,}",
            "started from": record.lineage.parent_run,
            "code": f"{git.get('commit') or 'no commit'}{' with changes' if git.get('dirty') else ''}",
            "spec": record.spec_fingerprint,
            "exec": record.exec_fingerprint,
            **{name: record.packages[name] for name in ("torch", "lightning") if name in record.packages},
        }
    )
    yield f"```yaml\n{yaml.safe_dump(record.spec, sort_keys=False, allow_unicode=True)}```\n"


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
