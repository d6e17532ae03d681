import torch

from lightning_modules.functional import DenseCodes, SparseCodes


def both():
    values = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 0.0]])
    indices = torch.tensor([[4, 1], [0, 4], [2, 3]])
    dense = torch.zeros(3, 5)
    dense[0, 4], dense[1, 0], dense[1, 4] = 2, 1, 3
    return SparseCodes(values, indices, 5), DenseCodes(dense)


def test_sparse_and_dense_codes_answer_alike():
    sparse, dense = both()
    W_dec = torch.randn(5, 3)
    latents = torch.tensor([4, 2])
    assert torch.equal(sparse.dense(), dense.dense())
    assert torch.equal(sparse.firing_counts(), dense.firing_counts())
    assert torch.equal(sparse.columns(latents), dense.columns(latents))
    torch.testing.assert_close(sparse.decode(W_dec), dense.decode(W_dec))


def test_a_kept_latent_of_value_zero_has_not_fired():
    sparse, _ = both()
    assert sparse.firing_counts().tolist() == [1, 0, 0, 0, 2]


def test_columns_are_those_of_the_dense_codes_in_the_order_asked_for():
    kept = torch.rand(50, 30).topk(6, dim=1)
    codes = SparseCodes(kept.values, kept.indices, 30)
    latents = torch.tensor([17, 3, 29, 0])
    assert torch.equal(codes.columns(latents), codes.dense()[:, latents])
