"""What a model hub knows by a name, and what only this machine does."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]


def hub_name(known_here: str | None) -> str | None:
    """The name that stands for a model or a data set on a hub too; None for a folder, `package:NAME` and the like,
    which a model card may not name as its base.
    """
    if not known_here or Path(known_here).expanduser().exists():
        return None
    try:
        validate_repo_id(known_here)
    except HFValidationError:
        return None
    return known_here
