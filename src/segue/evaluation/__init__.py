"""The numbers of a network on a data set, and the run that makes and records them."""

from segue.evaluation.loop import Labeller, Scorer, create_scorers, evaluate, evaluate_files, evaluate_images
from segue.evaluation.run import Evaluation, evaluate_and_record

__all__ = [
    "Evaluation",
    "Labeller",
    "Scorer",
    "create_scorers",
    "evaluate",
    "evaluate_and_record",
    "evaluate_files",
    "evaluate_images",
]
