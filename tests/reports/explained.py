"""An explanation to show, with texts that would run if they could."""

from __future__ import annotations

from explanations import Difference, Document, Explanation, Part, Text
from explanations.told import Pair, Ranked

HOSTILE = "<script>alert('x')</script> \x1b[31m& \u202e done"


def text(*tokens: str, fires: dict[int, list[tuple[int, float]]] | None = None, truncated: bool = False) -> Text:
    return Text(["[CLS]", *tokens, "[SEP]"], truncated, fires or {})


def document(number: int, rank: int, cosine: float, shared: bool = True) -> Document:
    parts = [Part(7, 0.2 / rank, 0.05, 1.5, 1.2), Part(3, -0.02, 0.01 * rank, 0.4, 0.3)] if shared else []
    diagonal, halves = sum(part.diagonal for part in parts), sum(part.cross for part in parts)
    return Document(
        number=number,
        source=f"{HOSTILE}:{number}",
        given=f"open {HOSTILE}",
        rank=rank,
        cosine=cosine,
        diagonal=diagonal,
        cross=halves + 0.01,
        bias=0.03,
        error=cosine - diagonal - halves - 0.04,
        shared=parts,
        parts=parts,
        others=0.01,
        pairs=[Pair(7, 3, -0.01)] if shared else [],
        text=text(" open", " <script>", HOSTILE, fires={7: [(2, 2.0), (1, 0.5)], 3: [(3, 1.0)]}, truncated=number == 2),
        before=(rank + 1, cosine - 0.1),
        base=(1, 0.3),
    )


def explained(shared: bool = True) -> tuple[Explanation, Difference]:
    documents = [document(2, 1, 0.5, shared), document(1, 2, 0.4, shared)]
    explanation = Explanation(
        query=HOSTILE,
        read=text(" open", HOSTILE, fires={7: [(1, 1.5)], 3: [(2, 0.4)]}),
        side="tuned/encoder.layer.5",
        base_side="base/encoder.layer.5",
        documents=documents,
        rest=[Ranked(3, HOSTILE, 3, 0.1)],
        labels={3: "", 7: "near alert"},
        clamps={7: 0.0},
        about={"Model": HOSTILE},
    )
    return explanation, Difference(2, 1, [(7, 0.1, 0.0), (3, 0.0, -0.01)], 0.0, 0.0, 0.01, 0.1)
