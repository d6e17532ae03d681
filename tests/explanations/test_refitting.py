import torch

from explanations import open_reader, refitted
from explanations.refitting import non_negative
from explanations.text_latents import decoded
from lightning_modules.autoencoders import AbsTopK
from tests.explanations.readers import LAST, autoencoding, save_embedder


def test_no_other_codes_of_that_sign_leave_less_error():
    generator = torch.Generator().manual_seed(0)
    W, target = torch.randn(5, 12, generator=generator).double(), torch.randn(12, generator=generator).double()
    found = non_negative(W, target, torch.ones(5).double())
    assert bool((found >= 0).all())
    # where a code is positive the error is at a right angle to its direction, and elsewhere it points away
    slope = W @ (target - found @ W)
    torch.testing.assert_close(slope[found > 0], torch.zeros(int((found > 0).sum())).double(), atol=1e-5, rtol=0)
    assert bool((slope[found == 0] <= 1e-5).all())
    assert len(non_negative(W[:0], target, torch.ones(0).double())) == 0


def test_embeddings_stay_and_fewer_latents_miss_less(tmp_path):
    reader = open_reader(autoencoding(AbsTopK(24, k=4)).only, {"model": save_embedder(tmp_path)})
    read = reader.read(["open the file", "sort a list of text", "", "read the text of a file"])[LAST]
    fitted = refitted(read, 6)
    torch.testing.assert_close(fitted.pooled, read.pooled)
    for text in range(4):
        mine, before = fitted.codes.rows == text, read.codes.rows == text
        assert int(mine.sum()) <= 6
        values = dict(zip(read.codes.latents[before].tolist(), read.codes.values[before].tolist(), strict=True))
        kept = zip(fitted.codes.latents[mine].tolist(), fitted.codes.values[mine].tolist(), strict=True)
        assert all(value * values[latent] > 0 for latent, value in kept)
    everything = refitted(read, 24)
    assert bool((everything.error.norm(dim=1) <= read.error.norm(dim=1) + 1e-9).all())
    torch.testing.assert_close(decoded(fitted.codes, 4, read.W) + fitted.bias + fitted.error, read.pooled)
