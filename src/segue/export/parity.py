"""Whether an exported file says what the Predictor says, pixel by pixel."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segue.checkpoint import Card
from segue.data.samples import Sample, Samples
from segue.data.synthetic.base import SMALLEST
from segue.data.synthetic.streets import Streets
from segue.export.files import ExportedModel
from segue.images import IMAGE_SUFFIXES, Raster, to_grey
from segue.inference import Predictor, score
from segue.labels import Mask
from segue.metrics import ConfusionMatrix
from segue.prediction.one_image import read_photo

SHARE = 0.9999
"""Of the pixels must be equal: runtimes add in other orders, so that scores differ in their last bits, and two classes may be
equally likely. In some networks the last bit is worth more: unpooling asks which of four values is the largest, and where they
are equal the last bit decides on the whole neighbourhood. So where more pixels differ, the network is asked how many change in
itself when every value of its input is moved by up to `LAST_BIT`, three times over: not more than that may differ."""
LAST_BIT = 2**-23
DROP = 0.005
"""By so much the mean IU of a file that calculates with 8 bits may be below the network's own."""
SIZES = ((97, 131), (240, 321), (353, 160), (64, 96))  # height and width of drawn images, mostly multiples of nothing

Example = tuple[str, Raster, NDArray[np.float32] | None, NDArray[np.uint8] | None]
"""The name of an image, the image, its depth and its truth, where it has them."""


@dataclass
class Parity:
    """What a comparison found."""

    source: str
    """Where the images came from."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of equal pixels, by the image's name."""
    pixels: int = 0
    different: int = 0
    unstable: int = 0
    """Pixels that change in the network itself when its input is moved by the last bit, of the images in which some differ."""
    gap: float = 0.0
    """Where labels differ, the largest difference between the probabilities of the two, as the Predictor has them: near 0 they
    tie."""
    mean_iu: tuple[float, float] | None = None
    """Of the Predictor and of the file, on images with truth."""

    @property
    def share(self) -> float:
        return 1 - self.different / max(self.pixels, 1)

    def fault(self, int8: bool) -> str:
        """Why the file is refused; empty if it is not."""
        if not int8 and self.share < SHARE and self.different > self.unstable:
            worst = min(self.shares, key=lambda name: self.shares[name])
            return (
                f"only {self.share:.5%} of the pixels are equal to the network's, and {SHARE:.2%} must be; "
                f"the worst image is {worst} with {self.shares[worst]:.4%}"
            )
        if int8 and self.mean_iu and not self.mean_iu[1] >= self.mean_iu[0] - DROP:
            return (
                f"with 8 bits the mean IU is {self.mean_iu[1]:.2%} in place of {self.mean_iu[0]:.2%}, and it may drop by half "
                "a point; calibrate with more images of the kind that it will see, or leave out --int8"
            )
        return ""

    def lines(self) -> list[str]:
        """The report for people to read."""
        worst = sorted(self.shares, key=lambda name: self.shares[name])[:5]
        lines = [f"compared on {len(self.shares)} images ({self.source}): {self.share:.5%} of {self.pixels:,} pixels are equal"]
        lines += [f"  {self.shares[name]:.4%} of {name}" for name in worst if self.shares[name] < 1]
        if self.different:
            lines.append(f"where they differ, the probabilities of the two classes are at most {self.gap:.4f} apart;")
            lines.append(f"in the network itself {self.unstable} pixels of these images change with the last bit of its input")
            lines[-1] += f", and {self.different} differ"
        if self.mean_iu:
            lines.append(f"mean IU {self.mean_iu[0]:.2%} of the checkpoint, {self.mean_iu[1]:.2%} of the file")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shares": min(self.shares.values(), default=1.0), "images": len(self.shares), "share": self.share}


def compare(
    predictor: Predictor,
    exported: ExportedModel,
    examples: Sequence[Callable[[], Example]],
    source: str,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Parity:
    """Label every example by both. ValueError if there is none."""
    if not examples:
        raise ValueError(f"{source}: there are no images to compare on")
    parity = Parity(source)
    both = ConfusionMatrix(predictor.labels.names), ConfusionMatrix(predictor.labels.names)
    labelled = False
    for make in progress(examples):
        name, image, depth, truth = make()
        expected, got = predictor(image, depth), exported(image, depth)
        if got.shape != expected.shape or got.dtype != np.uint8:
            raise ValueError(f"{name}: the file gives {got.dtype} {got.shape} in place of uint8 {expected.shape}")
        places = np.nonzero(expected != got)
        parity.shares[name] = 1 - len(places[0]) / expected.size
        parity.pixels += expected.size
        parity.different += len(places[0])
        if len(places[0]):
            likely = predictor.probabilities(image, depth)[:, places[0], places[1]]
            many = np.arange(len(places[0]))
            shaken = [shake(predictor, image, depth, seed) != expected for seed in range(3)]
            parity.unstable += int(np.count_nonzero(np.any(shaken, axis=0)))
            gaps = likely[expected[places], many] - likely[np.minimum(got[places], len(likely) - 1), many]
            parity.gap = max(parity.gap, float(gaps.max()))
        if truth is not None:
            labelled = True
            for matrix, mask in zip(both, (expected, got), strict=True):
                matrix.update(truth, mask)
    if labelled:
        parity.mean_iu = both[0].mean_iu, both[1].mean_iu
    return parity


@torch.inference_mode()
def shake(predictor: Predictor, image: Raster, depth: NDArray[np.float32] | None, seed: int) -> Mask:
    """The Predictor's label map when every value that the network sees is moved by up to `LAST_BIT` of itself."""
    x = predictor.see(image, depth)
    x = x * (1 + LAST_BIT * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) - 1))
    return score(predictor.network, x, image.shape[:2]).labels()[0].numpy()


def drawn_examples(card: Card, kind: str, smallest: int) -> list[Callable[[], Example]]:
    """Streets of several sizes, as the network takes images: of so many channels and of the type `kind`."""
    sizes = [*SIZES]
    if card.short_side:  # one that is enlarged and one that is made smaller
        sizes += [(2 * card.short_side // 3, card.short_side + 1), (card.short_side + 101, 4 * card.short_side // 3)]
    least = max(smallest, SMALLEST)
    fitting = [(max(height, least), max(width, least)) for height, width in sizes]
    return [lambda number=number, size=size: draw(card, kind, number, size) for number, size in enumerate(fitting)]  # type: ignore[misc]


def draw(card: Card, kind: str, number: int, size: tuple[int, int]) -> Example:
    sample = Streets("val", number + 1, size)[number]
    image: Raster = sample["image"]
    channels = card.in_channels - card.depth
    image = to_grey(sample["image"]) if channels == 1 else image[..., np.arange(channels) % 3]
    return f"{size[0]} x {size[1]}", as_kind(image, kind), sample["depth"] if card.depth else None, None


def as_kind(image: Raster, kind: str) -> Raster:
    """The image of 8 bits as one of another type."""
    if image.dtype == np.uint8 and kind == "uint16":
        return image.astype(np.uint16) * 257
    if image.dtype == np.uint8 and kind == "float32":
        return (image / 255).astype(np.float32)
    if image.dtype.name != kind:
        raise ValueError(f"the image is {image.dtype}, and the file is to take {kind}; say --input {image.dtype}")
    return image


def folder_examples(folder: Path, channels: int, kind: str) -> list[Callable[[], Example]]:
    """The images in a folder and the folders in it; ValueError if there are none."""
    return [lambda path=path: photo(path, channels, kind) for path in list_images(folder)]  # type: ignore[misc]


def photo(path: Path, channels: int, kind: str) -> Example:
    return str(path), as_kind(read_photo(path, channels)[1], kind), None, None


def list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name one with images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)})")
    return found


def sample_examples(samples: Samples, card: Card, kind: str) -> list[Callable[[], Example]]:
    """All samples of a split, with their truth."""
    return [lambda index=index: labelled(samples, index, card, kind) for index in range(len(samples))]  # type: ignore[misc]


def labelled(samples: Samples, index: int, card: Card, kind: str) -> Example:
    sample: Sample = samples[index]
    depth = sample["depth"] if card.depth and "depth" in sample else None
    return samples.name(index), as_kind(sample["image"], kind), depth, sample["mask"]


def readable(examples: Sequence[Callable[[], Example]], most: int, say: Callable[[str], None]) -> Iterator[Example]:
    """Up to `most` examples, spread over all; those that cannot be read are named and passed over."""
    spread = [examples[len(examples) * place // min(most, len(examples))] for place in range(min(most, len(examples)))]
    for make in spread:
        try:
            yield make()
        except ValueError as error:
            say(f"left out: {error}")
