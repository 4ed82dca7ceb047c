"""Arrays in, labels out: the predictor, and what it stands on."""

from segue.inference.predictor import Normalize, Predictor, label_maps, resize_image, score, working_size

__all__ = ["Normalize", "Predictor", "label_maps", "resize_image", "score", "working_size"]
