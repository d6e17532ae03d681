"""A corpus in another order."""

from __future__ import annotations

import errno
import hashlib
import random
import tempfile
from array import array
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from jsonargparse.typing import PositiveInt

from datamodules.text.corpus import Corpus, Document
from run_store import UserError

IN_MEMORY = 64 << 20  # bytes of text that are shuffled without a file


class Shuffled(Corpus):
    """The documents of a corpus, all of them and once each, in an order that the seed decides.

    Exact (no `buffer_documents`): every order is equally likely, by the hash of seed and name, so adding documents
    moves none of the others past each other, and the order of the corpus itself does not matter. The corpus is read to
    its end before the first document comes; its text waits in a temporary file ($TMPDIR) beyond 64 MiB, and the memory
    is 16 bytes a document.

    With `buffer_documents` N: the first document comes once N are read, and N are held in memory. Each is drawn at
    random from the N that are held, so a document comes at most N - 1 places earlier than in the corpus, but may come
    any number later (N on average): what lies much further apart than N stays in its order. The same seed and corpus
    give the same order; a document more changes it from there on.

    Args:
        corpus: What to shuffle.
        seed: Decides the order.
        buffer_documents: For a corpus too large to be read in full; null shuffles exactly.
    """

    def __init__(self, corpus: Corpus, seed: int = 0, buffer_documents: PositiveInt | None = None) -> None:
        self.corpus = corpus
        self.seed = seed
        self.buffer_documents: int | None = buffer_documents

    def documents(self) -> Iterator[Document]:
        """Yields the documents in the new order.

        Raises:
            UserError: what the corpus raises, or there is no room for the temporary file.
        """
        return self._exactly() if self.buffer_documents is None else self._from_a_buffer(self.buffer_documents)

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "corpus": self.corpus.describe(),
            "seed": self.seed,
            "buffer_documents": self.buffer_documents,
        }

    def _exactly(self) -> Iterator[Document]:
        try:
            # The file is flushed when it is closed too, so that a full disk may be met outside the block.
            with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as spool:
                yield from self._through(spool)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"no space left in {tempfile.gettempdir()} for the text to be shuffled: set TMPDIR in the environment "
                "to a folder with room for all of it, or set buffer_documents"
            ) from error

    def _through(self, spool: IO[bytes]) -> Iterator[Document]:
        keys, offsets = array("Q"), array("Q")
        for document in self.corpus.documents():
            keys.append(self._key(document.name))
            offsets.append(_write(spool, document))
        for index in np.argsort(np.array(keys, dtype=np.uint64), kind="stable"):
            yield _read(spool, offsets[index])

    def _from_a_buffer(self, size: int) -> Iterator[Document]:
        # Of `random`, only the sequence of random() is the same in every version of Python.
        generator, held = random.Random(self.seed), list[Document]()
        for document in self.corpus.documents():
            held.append(document)
            if len(held) == size:
                yield _draw(held, generator)
        while held:
            yield _draw(held, generator)

    def _key(self, name: str) -> int:
        digest = hashlib.blake2b(f"{self.seed} {name}".encode(), digest_size=8, person=b"shuffle")
        return int.from_bytes(digest.digest(), "little")


def _draw(held: list[Document], generator: random.Random) -> Document:
    place = int(generator.random() * len(held))
    held[place], held[-1] = held[-1], held[place]
    return held.pop()


def _write(spool: IO[bytes], document: Document) -> int:
    """Appends a document and returns where it begins."""
    name, text = document.name.encode(), document.text.encode()
    offset = spool.tell()
    spool.write(len(name).to_bytes(8, "little") + len(text).to_bytes(8, "little") + name + text)
    return offset


def _read(spool: IO[bytes], offset: int) -> Document:
    spool.seek(offset)
    name_bytes, text_bytes = (int.from_bytes(spool.read(8), "little") for _ in range(2))
    return Document(spool.read(name_bytes).decode(), spool.read(text_bytes).decode())
