"""What pages of HTML are made of that need nothing else: parts from files, JSON inside of HTML, and a policy that lets
nothing else run.
"""

from __future__ import annotations

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

SHARED = "reports.page"
SHARED_STYLES = ("base.css", "frame.css")
SHARED_SCRIPTS = ("dom.js", "theme.js")


def when() -> str:
    """The moment at which a page is written, in words."""
    return datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def as_json(value: Any) -> str:
    """JSON that cannot end the element it stands in: all but ASCII is escaped, and so are the signs of markup."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:  # rare, and looking for them first would take far longer than all else
        text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def finite(value: Any) -> Any:
    """Plain values with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def policy(style: str, script: str, *more: str) -> str:
    """Nothing is loaded, nothing but the page's own style and script holds, and no text becomes elements.

    Args:
        style: all of the page's style.
        script: all of its script.
        *more: directives that are added.
    """
    own = (f"style-src '{_hash(style)}'", f"script-src '{_hash(script)}'", "trusted-types 'none'")
    named = {directive.partition(" ")[0] for directive in more}
    kept = [directive for directive in own if directive.partition(" ")[0] not in named]
    rest = ("base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'")
    return "; ".join(["default-src 'none'", *kept, *more, *rest])


def source_of(script: str) -> str:
    """What names a script in a policy: its hash."""
    return f"'{_hash(script)}'"


def _hash(text: str) -> str:
    return "sha256-" + b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def parts(room: str, names: Sequence[str]) -> str:
    """The texts of files of a package, one after the other.

    Args:
        room: a folder of a package, with dots.
        names: of the files in it.
    """
    package, _, folder = room.rpartition(".")
    return "\n".join((files(package) / folder / name).read_text(encoding="utf-8") for name in names)


def style_and_script(room: str, styles: Sequence[str], scripts: Sequence[str]) -> tuple[str, str]:
    """All of a page's style and script: what pages share, and behind it what is its own.

    Args:
        room: a folder of a package, with dots.
        styles: names of the files in it.
        scripts: likewise, in the order in which they are run.
    """
    style = "\n".join((parts(SHARED, SHARED_STYLES), parts(room, styles)))
    script = "\n".join((parts(SHARED, SHARED_SCRIPTS), parts(room, scripts)))
    return style, script
