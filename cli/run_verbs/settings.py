"""What the verbs have in common."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from cli.environments import folder_of_runs

ROOT = folder_of_runs()
"""The folder of all runs."""


def printed_json(content: Any) -> None:
    """Prints JSON. A number that is not finite becomes null, which JSON has in place of NaN."""
    print(json.dumps(_plain(content), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
