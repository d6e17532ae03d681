from exports.any_autoencoder import load_autoencoder
from exports.encoder_card import Training
from exports.encoder_formats import ENCODER_FORMATS, EncoderFormatName
from exports.encoders import export_encoder
from exports.exporting import export_model, write_sweep_card
from exports.folding import Folded, fold
from exports.formats import FORMATS, FormatName
from exports.hub import HubRepository
from exports.importing import import_autoencoder
from exports.kinds import Kind, kind_of
from exports.trained import Trained, alone, find_trained, holds_encoder, load_encoder, load_trained, members_of

__all__ = [
    "ENCODER_FORMATS",
    "FORMATS",
    "EncoderFormatName",
    "Folded",
    "FormatName",
    "HubRepository",
    "Kind",
    "Trained",
    "Training",
    "alone",
    "export_encoder",
    "export_model",
    "find_trained",
    "fold",
    "holds_encoder",
    "import_autoencoder",
    "kind_of",
    "load_autoencoder",
    "load_encoder",
    "load_trained",
    "members_of",
    "write_sweep_card",
]
