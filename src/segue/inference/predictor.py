"""From an image to its label map."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segue.checkpoint import Card, load_checkpoint
from segue.engines import create_engine
from segue.images import Raster, find_depth_fault, find_fault, to_planes
from segue.inference.upsampling import Taps, taps, upsample, upsample_argmax, upsample_confident
from segue.labels import Confidence, Labels, Mask, Probabilities
from segue.models.base import as_segmentation_model, pad_to_multiple

"""(H, W), the probability of the class that each pixel was given, 0 to 1."""

MOST = 2**26  # pixels of a view, beyond which the memory of common machines ends
BAND = 64  # rows whose class maps are in memory at a time, where there must be class maps


class Normalize(nn.Module):
    """Images (N, C, H, W) to floats: uint8 / 255, uint16 / 65535, or float32 as it is, less `mean`, divided by `std`.

    depth: float32 (N, 1, H, W) in metres, as one more channel, less its `mean`, divided by its `std`.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.scale: Tensor
        self.offset: Tensor
        scale, offset = 1 / (255 * np.array(std)), -np.array(mean) / np.array(std)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor, depth: Tensor | None = None) -> Tensor:
        white = {torch.uint8: 255, torch.uint16: 65535}.get(images.dtype, 1)  # the number that stands for 1
        if images.dtype == torch.uint16:  # with which torch does not calculate
            images = images.float()
        if depth is not None:
            images = torch.cat([images, white * depth], dim=1)
        return (images * (self.scale * (255 / white))).add_(self.offset)


@dataclass(frozen=True)
class Scores:
    """A network's own scores of images, and how each row and column of the result is interpolated from them."""

    values: Tensor  # (N, K, h, w)
    rows: Taps
    columns: Taps

    def labels(self) -> Tensor:
        """The likeliest class of each pixel, uint8 (N, H, W)."""
        return upsample_argmax(self.values, self.rows, self.columns)

    def probabilities(self, top: int = 0, bottom: int | None = None) -> Tensor:
        """The softmax over the classes at each pixel of these rows, (N, K, H, W)."""
        return upsample(self.values.float(), self.rows[top:bottom], self.columns).softmax(dim=1)


def score(
    network: Callable[[Tensor], Tensor], x: Tensor, size: tuple[int, int], engine: Callable[[Tensor], Tensor] | None = None
) -> Scores:
    """The scores of normalised images (N, C, h, w), to be laid out at `size`.

    A SegmentationModel gives them at its own resolution, by `engine` if there is one; any other network as it makes them.
    """
    model, seen = as_segmentation_model(network), x.shape[-2:]
    model.check_input(x)
    x = pad_to_multiple(x, model.stride, plus=int(model.aligned))
    values = (engine or model.score)(x)
    rows, columns = (
        taps(values.shape[dim], size[dim - 2], model.aligned, seen=seen[dim - 2], padded=x.shape[dim]) for dim in (2, 3)
    )
    return Scores(values, rows, columns)


def label_maps(network: Callable[[Tensor], Tensor], x: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest class of each pixel at `size`, uint8 (N, *size), of normalised images (N, C, H, W)."""
    return score(network, x, size).labels()


class Predictor:
    """Label maps for images of any size, with a network and what its card says of the images that it is used to.

    `network` is anything that maps normalised floats (1, C, H, W) to logits (1, K, H, W). An image is (H, W, C) of uint8, uint16
    or float32. Integers are seen as shares of what their type can hold, floats as they are: to a network that was trained on
    integers, give floats of 0 to 1; that they are in other units cannot be found out.

    `uses_depth`: the network's last channel is no part of an image, but its depth, and an image without it is refused.
    `engine`: what computes the network, a name of `segue.engines`.
    `scales`, `flip`: the image is seen at each of these sizes, as multiples of its own, and mirrored as well; the probabilities
    are averaged (DeepLab v3, section 4.1).
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        labels: Labels,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        short_side: int = 0,
        device: str = "cpu",
        uses_depth: bool = False,
        engine: str = "torch",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval() if isinstance(network, nn.Module) else network
        if not scales or not all(0 < scale < float("inf") for scale in scales):
            raise ValueError(f"scales (={tuple(scales)}) must be multiples of the image's size above 0, such as 0.75 1 1.25")
        if isinstance(network, nn.Module):
            self.engine: Callable[[Tensor], Tensor] = create_engine(engine, network, self.device)
        elif engine in ("torch", "auto"):
            self.engine = network
        else:
            raise ValueError(f'engine (="{engine}") takes a torch module, and this network is a {type(network).__name__}')
        self.labels = labels
        self.normalize = Normalize(mean, std).to(self.device)
        self.short_side = short_side
        self.uses_depth = uses_depth
        self.views = [(float(scale), mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]

    @classmethod
    def load(
        cls, checkpoint: str | Path, device: str = "", engine: str = "torch", scales: Sequence[float] = (1.0,), flip: bool = False
    ) -> "Predictor":
        """The predictor of a checkpoint; on a GPU where there is one, unless a device is named."""
        model, card = load_checkpoint(checkpoint)
        return cls.of(model, card, device, engine, scales, flip)

    @classmethod
    def of(
        cls, model: nn.Module, card: Card, device: str = "", engine: str = "torch", scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> "Predictor":  # fmt: skip
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, card.labels, card.mean, card.std, card.short_side, device, card.depth, engine, scales, flip)

    @property
    def channels(self) -> int:
        """What the network takes: those of the image, and depth where it uses that."""
        return self.normalize.scale.shape[1]

    @torch.inference_mode()
    def __call__(self, image: Raster, depth: NDArray[np.float32] | None = None) -> Mask:
        """The class number of each pixel, uint8 (H, W), of an image (H, W, C), and depth (H, W) in metres if it is used."""
        views = self.look(image, depth)
        if len(views) == 1:
            labels = views[0].labels()[0]
        else:
            labels = torch.cat([mean.argmax(dim=0).to(torch.uint8) for mean in averaged(views)])
        return labels.cpu().numpy()

    @torch.inference_mode()
    def with_confidence(self, image: Raster, depth: NDArray[np.float32] | None = None) -> tuple[Mask, Confidence]:
        """The class number of each pixel, as by a call, and its probability."""
        views = self.look(image, depth)
        if len(views) == 1:
            labels, confidence = upsample_confident(views[0].values, views[0].rows, views[0].columns)
            return labels[0].cpu().numpy(), confidence[0].cpu().numpy()
        best, classes = zip(*(mean.max(dim=0) for mean in averaged(views)), strict=True)
        return torch.cat(classes).to(torch.uint8).cpu().numpy(), torch.cat(best).cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, image: Raster, depth: NDArray[np.float32] | None = None) -> Probabilities:
        """The softmax over the classes at each pixel, float32 (K, H, W)."""
        bands = [band.cpu().numpy() for band in averaged(self.look(image, depth))]
        return np.concatenate(bands, axis=1)

    @torch.inference_mode()
    def sampled(
        self, image: Raster, samples: int = 40, depth: NDArray[np.float32] | None = None
    ) -> tuple[Probabilities, NDArray[np.float32]]:
        """Monte Carlo dropout (Bayesian SegNet, section 3): the mean of the softmax, (K, H, W), and its variance, (H, W).

        Dropout stays on while `samples` predictions are drawn; the variance over these is averaged over the classes. ValueError
        if the network has no dropout.
        """
        dropouts = self.check_sampling(samples)
        x = self.see(image, depth)
        for dropout in dropouts:
            dropout.train()
        try:
            total = squares = torch.zeros(())
            for _ in range(samples):
                probabilities = score(self.network, x, image.shape[:2]).probabilities()[0].cpu()
                total, squares = total + probabilities, squares + probabilities**2
        finally:
            for dropout in dropouts:
                dropout.eval()
        mean = total / samples
        variance = (squares / samples - mean**2).clamp(min=0).mean(dim=0)
        return mean.numpy(), variance.numpy()

    def look(self, image: Raster, depth: NDArray[np.float32] | None = None) -> list[Scores]:
        """The network's scores of each view of an image. ValueError if one is enlarged to more than 2**26 pixels."""
        x = self.prepare(image, depth)
        height, width = working_size(self.short_side, *image.shape[:2])
        for scale, _ in self.views:
            if scale > 1 and height * width * scale * scale > MOST:
                raise ValueError(
                    f"image would be seen at {width} x {height} pixels (width x height) times scale {scale:g}, more than {MOST} "
                    "in all; take smaller scales, or label it in tiles: segue predict --tiles, or "
                    "segue.inference.tiling.predict_tiled"
                )
        views = []
        for scale, mirrored in self.views:
            seen = resize_image(x, (max(1, round(scale * height)), max(1, round(scale * width))))
            scores = score(self.network, seen.flip(-1) if mirrored else seen, image.shape[:2], self.engine)
            views.append(Scores(scores.values, scores.rows, scores.columns[::-1]) if mirrored else scores)
        return views

    def see(self, image: Raster, depth: NDArray[np.float32] | None = None) -> Tensor:
        """An image as the network sees it where it is seen once: normalised, at the working size, (1, C, h, w)."""
        return resize_image(self.prepare(image, depth), working_size(self.short_side, *image.shape[:2]))

    def check_sampling(self, samples: int) -> list[nn.Module]:
        """The network's layers of dropout; ValueError if it has none, or if there are too few samples."""
        modules = self.network.modules() if isinstance(self.network, nn.Module) else []
        dropouts: list[nn.Module] = [module for module in modules if isinstance(module, nn.Dropout | nn.Dropout2d)]
        if samples < 2:
            raise ValueError(f"samples (={samples}) must be at least 2: the uncertainty is their variance")
        if not dropouts:
            raise ValueError("the network has no dropout, so all its samples are alike; bayesian_segnet is made for this")
        return dropouts

    def prepare(self, image: Raster, depth: NDArray[np.float32] | None) -> Tensor:
        """An image and its depth, normalised, (1, C, H, W); ValueError if they are not what the network takes."""
        channels = self.channels - (depth is not None)
        if self.uses_depth and depth is None:
            raise ValueError(
                f"this network takes images of {self.channels - 1} channels and their depth, which is no channel of an image: "
                "pass it as depth=, float32 (H, W) in metres"
            )
        if depth is not None and image.shape[2:] == (self.channels,):
            raise ValueError("depth is given, but this network takes the image alone; leave it out")
        fault = find_fault(image, channels)
        if fault:
            hint = "; a network that uses depth takes it as depth=" if image.shape[2:] == (self.channels - 1,) else ""
            raise ValueError(f"image has {fault}{hint}")
        if depth is not None and (fault := find_depth_fault(np.asarray(depth), image.shape[:2])):
            raise ValueError(f"depth has {fault}")
        x = torch.from_numpy(to_planes(image))[None].to(self.device)
        metres = None if depth is None else torch.tensor(depth, dtype=torch.float32, device=self.device)[None, None]
        return self.normalize(x, metres)


def averaged(views: Sequence[Scores]) -> Iterator[Tensor]:
    """The mean probabilities of the views of one image, (K, rows, W), from the first band of rows to the last."""
    for top in range(0, len(views[0].rows), BAND):
        total = views[0].probabilities(top, top + BAND)[0]
        for view in views[1:]:
            total += view.probabilities(top, top + BAND)[0]
        yield total / len(views)


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
