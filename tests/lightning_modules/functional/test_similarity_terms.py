import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional import SplitVectors, latent_terms, similarity_terms, strongest_pairs


def vectors(n, m, d, seed, density=0.5):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(n, m, generator=generator, dtype=torch.float64)
    codes *= torch.rand(n, m, generator=generator) < density
    bias, error = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return SplitVectors(codes, bias, error)


def directions(m, d):
    return torch.randn(m, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def one_by_one(query, document, W):
    """Terms by the definition: every product of two summands, one at a time."""
    parts_of = [
        [(("latent", i), each.codes[0, i] * W[i]) for i in range(len(W))]
        + [(("bias", 0), each.bias[0]), (("error", 0), each.error[0])]
        for each in (query, document)
    ]
    x, y = (sum(vector for _, vector in parts) for parts in parts_of)
    unit = 1 / (x.norm() * y.norm())
    terms = {"diagonal": 0.0, "cross": 0.0, "bias": 0.0, "error": 0.0}
    pairs = {}
    for (kind, i), left in parts_of[0]:
        for (other, j), right in parts_of[1]:
            term = float(left @ right * unit)
            if "error" in (kind, other):
                terms["error"] += term
            elif "bias" in (kind, other):
                terms["bias"] += term
            else:
                terms["diagonal" if i == j else "cross"] += term
                pairs[i, j] = term
    return terms, pairs, float(torch.cosine_similarity(x, y, dim=0))


@settings(max_examples=20)
@given(q=st.integers(1, 3), n=st.integers(1, 3), m=st.integers(0, 6), d=st.integers(1, 5), seed=st.integers(0, 99))
def test_terms_are_those_of_every_product_and_sum_to_the_cosine(q, n, m, d, seed):
    W, queries, documents = directions(m, d), vectors(q, m, d, seed), vectors(n, m, d, seed + 1000)
    terms = similarity_terms(queries, documents, W)
    total = terms.diagonal + terms.cross + terms.residual
    torch.testing.assert_close(total, terms.cosine, rtol=0, atol=1e-12)
    for row in range(q):
        for column in range(n):
            one = SplitVectors(*(part[row : row + 1] for part in queries))
            other = SplitVectors(*(part[column : column + 1] for part in documents))
            expected, pairs, cosine = one_by_one(one, other, W)
            assert abs(terms.cosine[row, column] - cosine) < 1e-10
            for name, value in expected.items():
                assert abs(getattr(terms, name)[row, column] - value) < 1e-10 * max(1, abs(value)), name
            found = strongest_pairs(one, other, W, 3)
            strongest = sorted((abs(v) for (i, j), v in pairs.items() if i != j and v), reverse=True)[:3]
            torch.testing.assert_close(found.terms.abs().tolist(), strongest, rtol=1e-8, atol=1e-12)
            for i, j, value in zip(*(part.tolist() for part in found), strict=True):
                assert i != j
                assert abs(pairs[i, j] - value) < 1e-10 * max(1, abs(value))


@settings(max_examples=20)
@given(n=st.integers(1, 3), m=st.integers(0, 6), seed=st.integers(0, 99))
def test_what_latents_have_sums_to_the_terms_between_latents(n, m, seed):
    W, query, documents = directions(m, 4), vectors(1, m, 4, seed), vectors(n, m, 4, seed + 1000)
    terms, each = similarity_terms(query, documents, W), latent_terms(query, documents, W)
    torch.testing.assert_close(each.diagonal.sum(1), terms.diagonal[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(each.cross.sum(1), terms.cross[0], rtol=1e-9, atol=1e-9)
    for column in range(n):
        other = SplitVectors(*(part[column : column + 1] for part in documents))
        _, pairs, _ = one_by_one(query, other, W)
        for i in range(m):
            half = sum(v for pair, v in pairs.items() if i in pair and pair[0] != pair[1]) / 2
            assert abs(each.cross[column, i] - half) < 1e-9
            assert abs(each.diagonal[column, i] - pairs[i, i]) < 1e-9


def test_a_vector_of_zeros_has_cosine_0():
    W = directions(2, 3)
    nothing = SplitVectors(torch.zeros(1, 2).double(), torch.zeros(1, 3).double(), torch.zeros(1, 3).double())
    terms = similarity_terms(nothing, vectors(2, 2, 3, 0), W)
    assert all(torch.equal(part, torch.zeros(1, 2).double()) for part in terms)
    assert len(strongest_pairs(nothing, vectors(1, 2, 3, 0), W, 5).terms) == 0
