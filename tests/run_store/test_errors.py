from __future__ import annotations

import pytest

from run_store import nearest


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], ""),
        (["layer.3"], "layer.3"),
        (["layer.3", "embeddings"], "layer.3 or embeddings"),
        (["embeddings", "layer.345", "player.3", "layer.3"], "layer.3, player.3 or layer.345"),
    ],
)
def test_the_nearest_names_come_first(candidates: list[str], message: str) -> None:
    assert nearest("layr.3", candidates) == message


def test_as_many_names_as_asked_for() -> None:
    assert nearest("layr.3", iter(["layer.1", "layer.2", "layer.3"]), count=1) == "layer.3"
