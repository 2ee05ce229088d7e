"""Publishing on the Hub: a trained model in one commit, with its card, its code and its endpoint's handler."""

from .card import make_card
from .publish import Publication, PublishError, publish, publish_space
from .run import TrainedRun, read_run
from .trainer_card import write_trainer_card

__all__ = [
    "Publication",
    "PublishError",
    "TrainedRun",
    "make_card",
    "publish",
    "publish_space",
    "read_run",
    "write_trainer_card",
]
