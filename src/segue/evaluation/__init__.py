"""The numbers of a network on a data set, and the run that makes and records them."""

from segue.evaluation.loop import Scorer, create_scorers, evaluate, evaluate_files, evaluate_images

__all__ = ["Scorer", "create_scorers", "evaluate", "evaluate_files", "evaluate_images"]
