"""Images: saved, of clouds, and small networks that label them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

from segue import Labels, Predictor
from segue.images.open_rows import open_source
from segue.models.base import SegmentationModel

HEIGHT, WIDTH = 300, 500


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    """As an image file, in folders made for it; the options are Pillow's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, **options)
    return path


class Bright(nn.Module):
    """Class 1 where an image is bright, 0 where it is dark."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean(dim=1, keepdim=True)
        return torch.cat([0.5 - light, light - 0.5], dim=1)


class Coarse(SegmentationModel):
    """Three classes at 1/8, each by the mean of 8 x 8 pixels."""

    stride = 8

    def __init__(self, channels: int = 3) -> None:
        super().__init__(3, channels)
        self.conv = nn.Conv2d(channels, 3, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(3, channels, 1, 1, generator=torch.Generator().manual_seed(1)))

    def score(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.avg_pool2d(x, 8))


def predictor(channels: int = 3) -> Predictor:
    return Predictor(Coarse(channels), Labels.from_names(["a", "b", "c"]), (0.5,) * channels, (0.25,) * channels)


def smooth(channels: int, kind: Any = np.uint8, height: int = HEIGHT, width: int = WIDTH, seed: int = 5) -> np.ndarray:
    """Clouds, so that there are areas of each class."""
    coarse = np.random.default_rng(seed).random((height // 20 + 2, width // 20 + 2, channels))
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1).reshape(height, width, channels)
    return image.astype(kind) if kind == np.float32 else (image * np.iinfo(kind).max).astype(kind)


def assert_same_labels(found: np.ndarray, expected: np.ndarray) -> None:
    """Of one network seen in other pieces: kernels change with the size, and with them the last bits where two classes tie."""
    assert found.shape == expected.shape
    assert (found != expected).sum() <= 2 + 1e-5 * expected.size


def whole(path: Path, first: int = 0) -> np.ndarray:
    return np.concatenate(list(open_source(path).rows(first)))
