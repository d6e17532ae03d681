import torch

from lightning_modules.functional import BatchCodes, DenseCodes, SparseCodes


def all_kinds():
    values = torch.tensor([[2.0, 0.0], [1.0, 3.0], [0.0, 0.0]])
    indices = torch.tensor([[4, 1], [0, 4], [2, 3]])
    dense = torch.zeros(3, 5)
    dense[0, 4], dense[1, 0], dense[1, 4] = 2, 1, 3
    of_batch = BatchCodes(
        torch.tensor([0.0, 2.0, 1.0, 3.0]),
        torch.tensor([1, 4, 0, 4]),
        torch.tensor([0, 0, 1, 1]),
        3,
        5,
        torch.tensor(1.0),
    )
    return SparseCodes(values, indices, 5), of_batch, DenseCodes(dense)


def test_all_kinds_of_codes_answer_alike():
    *others, dense = all_kinds()
    W_dec = torch.randn(5, 3)
    latents = torch.tensor([4, 2])
    for codes in others:
        assert codes.batch == dense.batch == 3
        assert torch.equal(codes.dense(), dense.dense())
        assert torch.equal(codes.firing_counts(), dense.firing_counts())
        assert torch.equal(codes.columns(latents), dense.columns(latents))
        torch.testing.assert_close(codes.decode(W_dec), dense.decode(W_dec))
        fired = [sorted(zip(*(part.tolist() for part in kind.fired()), strict=True)) for kind in (codes, dense)]
        assert fired[0] == fired[1] == [(0, 4, 2.0), (1, 0, 1.0), (1, 4, 3.0)]


def test_what_is_not_zero_of_dense_codes_is_what_a_batch_keeps():
    dense = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 3.0]])
    codes = BatchCodes.of(dense)
    assert torch.equal(codes.dense(), dense)
    assert codes.values.tolist() == [2.0, 1.5, 3.0]
    assert codes.least == 1.5


def test_a_kept_latent_of_value_zero_has_not_fired():
    sparse = all_kinds()[0]
    assert sparse.firing_counts().tolist() == [1, 0, 0, 0, 2]


def test_columns_are_those_of_the_dense_codes_in_the_order_asked_for():
    kept = torch.rand(50, 30).topk(6, dim=1)
    codes = SparseCodes(kept.values, kept.indices, 30)
    latents = torch.tensor([17, 3, 29, 0])
    assert torch.equal(codes.columns(latents), codes.dense()[:, latents])
