"""Rankings taken apart, and what is told of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from explanations import ExplainedRanking, difference, labels_from_texts, open_reader, told
from lightning_modules.autoencoders import TopK
from run_store import UserError
from tests.explanations.readers import LAST, WORDS, autoencoding, save_embedder

DOCUMENTS = ["open and close a file", "sort the list", "read the text of a file", "join", "read the text of a file"]


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
    reader = open_reader(
        autoencoding(TopK(24, k=4)).only, {"model": save_embedder(tmp_path_factory.mktemp("embedder"))}
    )
    return reader.read(["open the file"])[LAST], reader.read(DOCUMENTS)[LAST]


def cosines(query, documents):
    return torch.cosine_similarity(query.pooled, documents.pooled, dim=1)


def test_documents_stand_by_cosine_and_equal_ones_in_their_order(reads):
    ranking = ExplainedRanking(*reads)
    torch.testing.assert_close(ranking.terms.cosine, cosines(*reads))
    assert torch.equal(ranking.before, ranking.terms.cosine)
    ordered = ranking.terms.cosine[ranking.order].tolist()
    assert ordered == sorted(ordered, reverse=True)
    assert ranking.order.index(2) + 1 == ranking.order.index(4)
    for place in range(len(DOCUMENTS)):
        terms = ranking.latent_terms(place)
        torch.testing.assert_close(terms.diagonal.sum(), ranking.terms.diagonal[place])
        torch.testing.assert_close(terms.cross.sum(), ranking.terms.cross[place])


def test_a_clamped_latent_is_what_the_query_would_be_with_it(reads):
    query, documents = reads
    latent = int(query.codes.latents[query.codes.values.abs().argmax()])
    absent = next(i for i in range(24) if i not in query.codes.latents.tolist())
    value = query.codes.values[query.codes.latents == latent]
    for clamps, moved in (
        ({latent: 0.0}, -value * query.W[latent]),
        ({latent: 0.0, absent: 2.5}, 2.5 * query.W[absent] - value * query.W[latent]),
    ):
        ranking = ExplainedRanking(query, documents, clamps)
        expected = torch.cosine_similarity(query.pooled + moved, documents.pooled, dim=1)
        torch.testing.assert_close(ranking.terms.cosine, expected)
        torch.testing.assert_close(ranking.before, cosines(query, documents))
    with pytest.raises(UserError, match="clamp: there is no latent 24: they go from 0 to 23"):
        ExplainedRanking(query, documents, {24: 1.0})


def test_a_difference_is_exact_and_sorted(reads):
    ranking = ExplainedRanking(*reads)
    found = difference(ranking, 0, 3, 3)
    parts = [diagonal + cross for _, diagonal, cross in found.parts]
    assert abs(sum(parts) + found.others + found.bias + found.error - found.total) < 1e-12
    assert abs(found.total - float(ranking.terms.cosine[0] - ranking.terms.cosine[3])) < 1e-12
    assert [abs(part) for part in parts] == sorted(map(abs, parts), reverse=True)
    assert difference(ranking, 2, 4, 3).parts == []


def test_what_is_told_adds_up_and_is_plain(reads):
    ranking = ExplainedRanking(*reads)
    explanation = told(
        "open the file",
        reads,
        [(text, f"list:{n}") for n, text in enumerate(DOCUMENTS)],
        ranking,
        lambda ids: [str(token) for token in ids],
        side=LAST,
        clamps={},
        base=("base", [0.1, 0.5, 0.3, 0.2, 0.4]),
        top=2,
        shown=[*ranking.order[:2], 3],
    )
    assert json.loads(json.dumps(asdict(explanation)))["query"] == "open the file"
    assert {document.number for document in explanation.documents} >= {4}
    assert len(explanation.documents) + len(explanation.rest) == len(DOCUMENTS)
    for document in explanation.documents:
        assert abs(document.diagonal + document.cross + document.bias + document.error - document.cosine) < 1e-12
        whole = sum(part.diagonal + part.cross for part in document.parts) + document.others
        assert abs(whole - document.diagonal - document.cross) < 1e-12
        assert len(document.shared) <= 2
        for part in document.shared:
            assert part.latent in explanation.labels
            assert explanation.read.fires[part.latent]
            assert document.text.fires[part.latent]
        assert document.before is None
    fourth = explanation.document(4)
    assert fourth is not None
    assert fourth.base == (4, 0.2)
    values = [value for on in explanation.read.fires.values() for _, value in on]
    assert values


def test_labels_name_what_a_latent_fires_on_in_the_texts(reads):
    labels = labels_from_texts(reads, lambda token: ["[UNK]", "[CLS]", "[SEP]", *WORDS][token])
    assert len(labels) == 24
    assert any("file" in label or "read" in label or "[CLS]" in label for label in labels)
