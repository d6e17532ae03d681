"""An explained ranking in words, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from explanations import Difference, Document, Explanation, Text
from reports.text_columns import cut, table, visible

TOKENS_TOLD = 4
MARGIN = "   "
CUT = "(cut where the model stops reading)"


def lines_of(explanation: Explanation, difference: Difference | None, width: int) -> Iterator[str]:
    """All that is told.

    Args:
        explanation: of a query with documents.
        difference: of two of them, if that was asked for.
        width: cells in a line.
    """
    yield f"query: {visible(explanation.query)}"
    if explanation.read.truncated:
        yield CUT
    yield f"model: {explanation.side}"
    if codes := explanation.about.get("Codes"):
        yield f"codes: {codes}"
    for latent, value in explanation.clamps.items():
        yield f"clamp: {_named(explanation, latent)} to {value:g} in the query"
    yield ""
    yield from _ranking(explanation, width)
    yield ""
    yield _sums(explanation)
    for document in explanation.documents:
        yield ""
        yield from _document(explanation, document, width)
    if difference is not None:
        yield ""
        yield from _difference(explanation, difference, width)


def _ranking(explanation: Explanation, width: int) -> Iterator[str]:
    header = ["rank", "cosine", "diagonal", "cross", "residual"]
    header += ["before"] if explanation.clamps else []
    header += ["base"] if explanation.base_side else []
    rows = []
    for document in explanation.documents:
        row = [str(document.rank), f"{document.cosine:.3f}"]
        row += [_share(term, document.cosine) for term in (document.diagonal, document.cross)]
        row += [_share(document.bias + document.error, document.cosine)]
        for other in (document.before, document.base):
            row += [] if other is None else [f"{other[1]:.3f} ({other[0]})"]
        rows.append([*row, f"#{document.number}", document.source, visible(" ".join(document.given.split()))])
    yield from table([*header, "", "", "document"], rows, width, elastic=1)
    if explanation.rest:
        ranked = [f"#{one.number} {one.cosine:.3f}" for one in explanation.rest[:8]]
        more = "" if len(explanation.rest) <= 8 else f" and {len(explanation.rest) - 8} more"
        yield f"not told of: {', '.join(ranked)}{more}"


def _sums(explanation: Explanation) -> str:
    apart = max(
        (abs(one.cosine - one.diagonal - one.cross - one.bias - one.error) for one in explanation.documents),
        default=0.0,
    )
    whole = sum(document.cosine for document in explanation.documents)
    latents = sum(document.diagonal + document.cross for document in explanation.documents)
    carried = f"; latents (diagonal and cross) carry {latents / whole:.0%} of these cosines" if whole > 0 else ""
    return f"diagonal + cross + residual = cosine to within {max(apart, 1e-16):.0e}{carried}"


def _document(explanation: Explanation, document: Document, width: int) -> Iterator[str]:
    yield f"{document.rank}. #{document.number} {visible(document.source)}, cosine {document.cosine:.3f}"
    yield MARGIN + cut(visible(" ".join(document.given.split())), width - len(MARGIN))
    if document.text.truncated:
        yield MARGIN + CUT
    residual = f"bias {document.bias:+.3f}, error {document.error:+.3f}"
    yield f"{MARGIN}diagonal {document.diagonal:+.3f}, cross {document.cross:+.3f}, {residual}"
    if document.shared:
        yield f"{MARGIN}latents of both:"
        header = ["", "latent", "query fires on", "document fires on"]
        rows = [
            [
                f"{part.diagonal:+.3f}",
                _named(explanation, part.latent),
                _tokens(explanation.read, part.latent),
                _tokens(document.text, part.latent),
            ]
            for part in document.shared
        ]
        yield from (MARGIN + line for line in table(header, rows, width - len(MARGIN), elastic=3))
    if document.pairs:
        yield f"{MARGIN}pairs of different latents, the query's first:"
        rows = [
            [
                f"{pair.term:+.3f}",
                f"{_named(explanation, pair.query)}  ×  {_named(explanation, pair.document)}",
            ]
            for pair in document.pairs
        ]
        yield from (MARGIN + line for line in list(table(["", ""], rows, width - len(MARGIN), elastic=1))[1:])


def _difference(explanation: Explanation, difference: Difference, width: int) -> Iterator[str]:
    yield (
        f"why #{difference.first} and not #{difference.second}: {difference.total:+.3f} of the cosine, latent by latent"
    )
    header = ["together", "diagonal", "cross", "latent"]
    rows = [
        [f"{diagonal + cross:+.3f}", f"{diagonal:+.3f}", f"{cross:+.3f}", _named(explanation, latent)]
        for latent, diagonal, cross in difference.parts
    ]
    for value, words in (
        (difference.others, "all other latents"),
        (difference.bias, "bias"),
        (difference.error, "error"),
        (difference.total, "difference of the cosines"),
    ):
        rows.append([f"{value:+.3f}", "", "", words])
    yield from table(header, rows, width, elastic=1)


def _named(explanation: Explanation, latent: int) -> str:
    label = explanation.labels.get(latent) or "no label"
    return f"{latent} {visible(label)}"


def _tokens(text: Text, latent: int) -> str:
    """The tokens on which a latent fires most, each once."""
    fires = (visible(text.tokens[place]).strip() for place, _ in text.fires.get(latent, []))
    different = list(dict.fromkeys(token for token in fires if token))
    return " · ".join(different[:TOKENS_TOLD]) + (" …" if len(different) > TOKENS_TOLD else "")


def _share(term: float, cosine: float) -> str:
    return f"{term:+.3f} ({term / cosine:.0%})" if cosine > 0 else f"{term:+.3f}"
