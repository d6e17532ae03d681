import torch

from features import NO_TOKEN, Firings, automatic_labels, typical_patterns
from features.row_sample import SampledRows

WORDS = {0: " the", 1: " def", 2: " self", 3: ".", 4: " x", 5: "\n", 6: "()"}


def labels_of(rows):
    """Of rows (token, {latent: value}), all of one document."""
    tokens = torch.tensor([token for token, _ in rows], dtype=torch.int32)
    none = torch.tensor([NO_TOKEN], dtype=torch.int32)
    entries = [entry for _, fired in rows for entry in fired.items()]
    sample = SampledRows(
        tokens,
        torch.cat([none, tokens[:-1]]),
        torch.cat([tokens[1:], none]),
        torch.tensor([len(fired) for _, fired in rows], dtype=torch.int32),
        torch.tensor([latent for latent, _ in entries], dtype=torch.int16),
        torch.tensor([float(value) for _, value in entries]),
    )
    patterns = typical_patterns(sample, Firings.of(sample, 3, 100), 4)
    return automatic_labels(patterns)


def test_the_token_is_named_where_the_latent_fires_on_it_whatever_stands_beside():
    rows = [(0, {}), (2, {0: 1.0}), (4, {}), (2, {0: 2.0}), (3, {}), (1, {}), (2, {0: 1.0}), (6, {}), (4, {}), (3, {})]
    label = labels_of(rows)[0]
    assert (label.kind, label.patterns, label.explained) == ("token", ((2,),), 1.0)
    assert label.words(WORDS.__getitem__) == "self"


def test_what_stands_before_is_named_where_the_tokens_differ():
    rows = [(1, {}), (0, {0: 1.0}), (4, {}), (1, {}), (2, {0: 1.0}), (0, {}), (1, {}), (4, {0: 1.0}), (2, {}), (4, {})]
    label = labels_of(rows)[0]
    assert (label.kind, label.words(WORDS.__getitem__)) == ("before", "after def")


def test_a_pair_is_named_where_the_token_alone_is_common():
    rows = [(2, {}), (3, {0: 1.0}), (4, {}), (3, {}), (2, {}), (3, {0: 1.0}), (2, {}), (4, {}), (2, {}), (3, {0: 1.0})]
    label = labels_of(rows)[0]
    assert (label.kind, label.words(WORDS.__getitem__)) == ("ending", "self.")


def test_several_patterns_of_one_kind_are_named_by_their_scores():
    fires = [(0, {0: 3.0}), (5, {}), (1, {0: 4.0}), (4, {})]
    rows = [*fires, (3, {}), (5, {}), (2, {}), (6, {}), *fires, (3, {}), (2, {}), (5, {})]
    label = labels_of(rows)[0]
    assert label.words(WORDS.__getitem__) == "def · the"
    assert label.explained == 1.0


def test_no_label_where_nothing_is_typical_or_nothing_fired():
    labels = labels_of([(token % 7, {0: 1.0}) for token in range(21)])
    assert labels[0].kind is None
    assert labels[0].words(WORDS.__getitem__) == ""
    assert labels[1].kind is None


def test_a_token_of_blanks_can_be_seen():
    rows = [(0, {}), (5, {0: 1.0}), (4, {}), (5, {0: 2.0}), (3, {}), (1, {}), (5, {0: 1.0}), (6, {}), (4, {}), (3, {})]
    assert labels_of(rows)[0].words(WORDS.__getitem__) == "↵"
