import torch

from explanations.nearby import nearby_labels
from features import NO_TOKEN, SampledRows

WORDS = [f" w{number}" for number in range(50)]


def sampled(documents, fires):
    """Rows of documents of token ids; latent 0 is 1 where `fires(document, place)` says so, latent 1 everywhere."""
    columns = {"tokens": [], "before": [], "after": []}
    latents, counts = [], []
    for number, document in enumerate(documents):
        for place, token in enumerate(document):
            columns["tokens"].append(token)
            columns["before"].append(document[place - 1] if place else NO_TOKEN)
            columns["after"].append(document[place + 1] if place + 1 < len(document) else NO_TOKEN)
            mine = [0, 1] if fires(number, place) else [1]
            latents += mine
            counts.append(len(mine))
    tensors = (torch.tensor(column, dtype=torch.int32) for column in (*columns.values(), counts))
    return SampledRows(*tensors, torch.tensor(latents), torch.ones(len(latents)))


def test_a_latent_of_passages_is_named_by_what_is_near_it():
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, 45, (30,), generator=generator).tolist() for _ in range(40)]
    for document in documents[:4]:
        document[15] = 47  # in the middle of where latent 0 fires, and nowhere else
    sample = sampled(documents, lambda number, place: number < 4 and 8 <= place < 22)
    labels = nearby_labels(sample, 3, WORDS.__getitem__)
    assert labels[0].startswith("near w47")
    assert labels[1:] == ["", ""]


def test_other_documents_are_not_near():
    # 47 begins every document, and latent 0 fires on the last token of the one before
    documents = [[47, *range(10)] for _ in range(30)]
    labels = nearby_labels(sampled(documents, lambda number, place: place == 10), 2, WORDS.__getitem__)
    assert "w47" in labels[0] or labels[0] == ""
    apart = [[47, 1], [2] * 20] * 30
    labels = nearby_labels(sampled(apart, lambda number, place: number % 2 and place == 0), 2, WORDS.__getitem__)
    assert "w47" not in labels[0]


def test_nothing_gives_nothing():
    assert nearby_labels(sampled([], lambda number, place: True), 2, WORDS.__getitem__) == ["", ""]
