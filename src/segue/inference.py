"""From an image to its label map."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.checkpoint import Card, load_checkpoint
from segue.labels import Image, Labels, Mask
from segue.layers import resize


class Normalize(nn.Module):
    """uint8 images (N, C, H, W) to floats: value / 255, less `mean`, divided by `std`."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.scale: Tensor
        self.offset: Tensor
        scale, offset = 1 / (255 * np.array(std)), -np.array(mean) / np.array(std)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.offset


def label_maps(network: Callable[[Tensor], Tensor], x: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel at `size`, uint8 (N, *size), of normalised images (N, C, H, W)."""
    return resize(network(x), size).argmax(dim=1).to(torch.uint8)


class Predictor:
    """Label maps for images of any size, with a network and what its card says of the images that it is used to.

    `network` is anything that maps normalised floats (1, C, H, W) to logits (1, K, H, W).
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        labels: Labels,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        short_side: int = 0,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval() if isinstance(network, nn.Module) else network
        self.labels = labels
        self.normalize = Normalize(mean, std).to(self.device)
        self.short_side = short_side

    @classmethod
    def load(cls, checkpoint: str | Path, device: str = "") -> "Predictor":
        """The predictor of a checkpoint; on a GPU where there is one, unless a device is named."""
        model, card = load_checkpoint(checkpoint)
        return cls.of(model, card, device)

    @classmethod
    def of(cls, model: nn.Module, card: Card, device: str = "") -> "Predictor":
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, card.labels, card.mean, card.std, card.short_side, device)

    @torch.inference_mode()
    def __call__(self, image: Image) -> Mask:
        """The class number of each pixel, uint8 (H, W), of an image uint8 (H, W, C)."""
        channels = self.normalize.scale.shape[1]
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(
                f"image has the shape {image.shape} and the type {image.dtype}; it must be (H, W, {channels}) of uint8"
            )
        size = image.shape[0], image.shape[1]
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(self.device)
        x = resize_image(self.normalize(x), working_size(self.short_side, *size))
        result: NDArray[np.uint8] = label_maps(self.network, x, size)[0].cpu().numpy()
        return result


def working_size(short_side: int, height: int, width: int) -> tuple[int, int]:
    """The height and width at which a network sees an image: its shorter side becomes `short_side`, unless that is 0.

    An image is not enlarged beyond 4096 pixels, so that a strip does not fill the memory.
    """
    scale = short_side / min(height, width) if short_side else 1.0
    scale = min(scale, max(1.0, 4096 / max(height, width)))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) at another size; smoothed first where it is smaller."""
    if tuple(x.shape[-2:]) == size:
        return x
    return nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
