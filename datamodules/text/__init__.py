from datamodules.text.corpus import Corpus, Document
from datamodules.text.packing import TokenBatch, pack
from datamodules.text.standard_library import StandardLibrary

__all__ = ["Corpus", "Document", "StandardLibrary", "TokenBatch", "pack"]
