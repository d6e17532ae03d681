from exports.exporting import export_model
from exports.folding import Folded, fold
from exports.formats import FORMATS, FormatName
from exports.importing import import_autoencoder
from exports.trained import Trained, alone, find_trained, load_trained, members_of

__all__ = [
    "FORMATS",
    "Folded",
    "FormatName",
    "Trained",
    "alone",
    "export_model",
    "find_trained",
    "fold",
    "import_autoencoder",
    "load_trained",
    "members_of",
]
