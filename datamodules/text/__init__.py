from datamodules.text.contexts import Columns, ContextRules, TextCounts, cut
from datamodules.text.corpus import Corpus, Document
from datamodules.text.held_out import HeldOut
from datamodules.text.hugging_face import HuggingFaceDataset
from datamodules.text.language_reference import LanguageReference
from datamodules.text.mixture import Mixture
from datamodules.text.packing import TokenBatch, TokenWindow, grouped, make_window, real_tokens
from datamodules.text.shuffled import Shuffled
from datamodules.text.standard_library import StandardLibrary
from datamodules.text.text_files import TextFiles
from datamodules.text.tokenising import TokenisedDocument, joining_tokens, template_tokens, tokenise

__all__ = [
    "Columns",
    "ContextRules",
    "Corpus",
    "Document",
    "HeldOut",
    "HuggingFaceDataset",
    "LanguageReference",
    "Mixture",
    "Shuffled",
    "StandardLibrary",
    "TextCounts",
    "TextFiles",
    "TokenBatch",
    "TokenWindow",
    "TokenisedDocument",
    "cut",
    "grouped",
    "joining_tokens",
    "make_window",
    "real_tokens",
    "template_tokens",
    "tokenise",
]
