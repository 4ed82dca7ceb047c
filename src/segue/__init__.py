"""segue: semantic segmentation on PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segue._version import __version__ as __version__

if TYPE_CHECKING:
    from segue.checkpoint import load_checkpoint as load_checkpoint
    from segue.checkpoint import save_checkpoint as save_checkpoint
    from segue.data import create_dataset as create_dataset
    from segue.evaluation import evaluate as evaluate
    from segue.evaluation import evaluate_files as evaluate_files
    from segue.evaluation import evaluate_images as evaluate_images
    from segue.inference import Predictor as Predictor
    from segue.labels import Labels as Labels
    from segue.metrics import ConfusionMatrix as ConfusionMatrix
    from segue.metrics import ImageMatrices as ImageMatrices
    from segue.models import create_model as create_model
    from segue.models import list_models as list_models
    from segue.recipes import Recipe as Recipe
    from segue.recipes import get_recipe as get_recipe
    from segue.training.losses import cross_entropy as cross_entropy
    from segue.training.train import train as train

# Each public name with its module, which is imported when the name is first used.
PUBLIC = {
    "ConfusionMatrix": "segue.metrics",
    "ImageMatrices": "segue.metrics",
    "Labels": "segue.labels",
    "Predictor": "segue.inference",
    "Recipe": "segue.recipes",
    "create_dataset": "segue.data",
    "create_model": "segue.models",
    "cross_entropy": "segue.training.losses",
    "evaluate": "segue.evaluation",
    "evaluate_files": "segue.evaluation",
    "evaluate_images": "segue.evaluation",
    "get_recipe": "segue.recipes",
    "list_models": "segue.models",
    "load_checkpoint": "segue.checkpoint",
    "save_checkpoint": "segue.checkpoint",
    "train": "segue.training.train",
}
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'segue' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
