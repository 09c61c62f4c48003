"""Training of score networks: `train` with a `Preset`, or `Trainer` with any model, loss and data.

The data come as `Batches`, each a function of seed, step and rank; a run that was killed continues exactly from its
last checkpoint. ``python -m scoresde.training digits --out DIR`` makes the shipped network.
"""

from .callbacks import BoundCallback, Metric, SampleCallback
from .classifier import CLASSIFIER, train_classifier
from .data import Arrays, Batches, Folder, Source, hold_out, read
from .digits import DIGITS, DIGITS_LEVELS, fit, train_digits
from .digits_data import DIGITS_DATA, DigitsSplit, digits_split, grey_to_x
from .preset import Preset, train
from .recipe import Recipe
from .stream import Piece, Stateless
from .trainer import Every, Progress, Trainer

__all__ = [
    "CLASSIFIER",
    "DIGITS",
    "DIGITS_DATA",
    "DIGITS_LEVELS",
    "Arrays",
    "Batches",
    "BoundCallback",
    "DigitsSplit",
    "Every",
    "Folder",
    "Metric",
    "Piece",
    "Preset",
    "Progress",
    "Recipe",
    "SampleCallback",
    "Source",
    "Stateless",
    "Trainer",
    "digits_split",
    "fit",
    "grey_to_x",
    "hold_out",
    "read",
    "train",
    "train_classifier",
    "train_digits",
]
