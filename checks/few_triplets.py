"""The first triplets of a data set, without reading or tokenising the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

from datamodules.contrastive_triplets import TripletDataModule
from datamodules.text.bad_rows import BadRows
from datamodules.triplets import Example, Tokenisation, TripletBatch, TripletSource
from run_store import UserError
from run_store.fingerprints import fingerprint


class FirstExamples(TripletSource):
    """The first examples of another source.

    Args:
        source: Of which they are.
        count: How many.

    Raises:
        UserError: the source cannot be read or has fewer.
    """

    def __init__(self, source: TripletSource, count: int) -> None:
        self.source = source
        self.found = list(islice(source.examples(BadRows(source.bad_rows, of="triplets")), count))
        if len(self.found) < count:
            raise UserError(f"data.source has {len(self.found)} examples and the check needs {count}: give it more")

    def read(self, bad: BadRows) -> Iterator[Example]:
        return iter(self.found)

    def describe(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "source": self.source.describe(), "count": len(self.found)}

    def fingerprint(self) -> str:
        return fingerprint([list(example) for example in self.found])


def few_triplets(
    examples: FirstExamples, data: TripletDataModule, tokenisations: Sequence[Tokenisation], count: int
) -> TripletBatch:
    """The first examples as one batch, with prompts and negatives as `data` gives them.

    Args:
        examples: Some of the data's, `count` at least.
        data: Whose settings are followed.
        tokenisations: How the encoder wants the texts.
        count: Examples of the batch.
    """
    with TemporaryDirectory() as cache:
        few = TripletDataModule(
            FirstExamples(examples, count),
            batch_size=count,
            validation_share=0.0,
            test_share=0.0,
            negatives_per_example=data.negatives_per_example,
            cache=cache,
        )
        few.prompts = dict(data.prompts)
        few.tokenisations = list(tokenisations)
        few.prepare_data()
        few.setup("fit")
        return next(few.sample(1))
