"""From image files to files of their labels: some are read and written while others are labelled."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from segue.data.cityscapes import CLASS_IDS
from segue.images import Raster, write_image
from segue.images.pictures import heat_map, overlay
from segue.images.rows import is_large, suffix_for
from segue.inference import Predictor
from segue.inference.crf import DenseCRF
from segue.labels import Image, Mask
from segue.machine.threads import ordered
from segue.prediction.large_images import label_file
from segue.prediction.one_image import describe, label_photo, read_photo
from segue.prediction.targets import beside, check_target

READERS, WRITERS = 2, 2  # threads
AHEAD, BEHIND = 8, 4  # images that are read before their turn; that are labelled and not yet written


@dataclass
class Photo:
    """An image and what is known of it so far."""

    source: Path
    target: Path
    """The file of its label map; other pictures are put beside it."""
    tiled: bool = False
    """Whether it is read, labelled and written in tiles, by itself."""
    error: str = ""
    """Why it is left out, if it is."""
    image: Image | None = None
    """As an RGB picture (H, W, 3)."""
    seen: Raster | None = None
    """As the network sees it."""
    mask: Mask | None = None
    uncertainty: NDArray[np.float32] | None = None
    """(H, W), the variance of several samples."""
    counts: NDArray[np.number] | None = None
    """How many pixels each class has."""

    @property
    def size(self) -> int:
        """Its bytes in memory."""
        return sum(array.nbytes for array in (self.image, self.seen) if array is not None)


@dataclass(frozen=True)
class Labelled:
    """What became of an image."""

    source: Path
    target: Path
    error: str
    """Why it was left out; empty if it was not."""
    shape: tuple[int, ...]
    """Height and width in pixels; empty for images in tiles."""
    shares: tuple[float, ...]
    """How much of it each class has, 0 to 1."""


def label_files(
    predictor: Predictor,
    targets: Mapping[Path, Path],
    crf: DenseCRF | None = None,
    samples: int = 0,
    submission: bool = False,
    tiles: bool = False,
    progress: Callable[[Path, float], None] = lambda source, share: None,
) -> Iterator[Labelled]:
    """Label images, given with the paths of their label maps, and tell what became of each, in their order.

    A label map is a PNG of class numbers; beside it are STEM_overlay.jpg and, where there are `samples`, STEM_uncertainty.jpg.
    With `submission` it holds Cityscapes' label ids, and nothing is put beside it. A file appears under its name when it is
    whole. An image that cannot be read or labelled is left out. ValueError, before any work, if an image would be overwritten, or
    a folder is in a result's place; OSError if a file cannot be written.

    tiles: label all images in tiles, as is done with large ones (segue.bigimages); of TIFFs, the label map is a .tif then. An
    image that was interrupted goes on where it stopped.
    progress: called with the path of such an image, and the share of it that is done.
    """
    sources = {source.resolve() for source in targets}
    kinds = () if submission else ("overlay", "uncertainty") if samples else ("overlay",)
    for target in targets.values():
        for path in (target, *(beside(target, kind) for kind in kinds)):
            check_target(path, sources)

    identity = cache(partial(identify, predictor))  # which takes a while

    def read(photo: Photo) -> Photo:
        if not photo.tiled:
            try:
                photo.image, photo.seen = read_photo(photo.source, predictor.channels)
            except (ValueError, MemoryError) as error:
                photo.error = describe(photo.source, error)
        return photo

    def label(photo: Photo) -> Photo:
        try:
            if photo.tiled:
                label_in_tiles(photo)
            elif photo.image is not None and photo.seen is not None:
                photo.mask, photo.uncertainty = label_photo(predictor, photo.image, photo.seen, crf, samples)
        except (ValueError, MemoryError, torch.OutOfMemoryError) as error:
            photo.error = describe(photo.source, error)
        return photo

    def label_in_tiles(photo: Photo) -> None:
        if crf or samples or submission:
            raise ValueError("an image of this size is labelled in tiles, without --crf, --samples and --cityscapes-submission")
        photo.target = photo.target.with_suffix(suffix_for(photo.source))
        check_target(photo.target, sources)
        photo.target.parent.mkdir(parents=True, exist_ok=True)
        progress(photo.source, 0.0)
        photo.counts = label_file(
            predictor,
            photo.source,
            photo.target,
            identity=identity(),
            progress=lambda share: progress(photo.source, share),
        )

    def write(photo: Photo) -> Labelled:
        target, mask, counts = photo.target, photo.mask, photo.counts
        if photo.image is not None and mask is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, CLASS_IDS[mask] if submission else mask)
            if not submission:
                write_image(beside(target, "overlay"), overlay(photo.image, mask, predictor.labels))
            if not submission and photo.uncertainty is not None:
                write_image(beside(target, "uncertainty"), heat_map(photo.uncertainty))
            counts = cv2.calcHist([mask], [0], None, [256], [0, 256]).reshape(-1)
        shares = () if counts is None else tuple(float(count / counts.sum()) for count in counts[: len(predictor.labels)])
        return Labelled(photo.source, target, photo.error, () if mask is None else mask.shape, shares)

    # Items are drawn in this thread, where is_large may look into the files.
    drawn = (Photo(source, target, tiled=tiles or is_large(source)) for source, target in targets.items())
    photos = ordered(read, drawn, READERS, AHEAD, lambda photo: photo.size)
    with closing(photos), closing(ordered(write, map(label, photos), WRITERS, BEHIND)) as results:
        yield from results


def identify(predictor: Predictor) -> str:
    """What tells a predictor's results from those of another; of a network that is no module, each time another."""
    if not isinstance(predictor.network, torch.nn.Module):
        return uuid.uuid4().hex
    digest = sha256(f"{predictor.labels} {predictor.device.type} {type(predictor.engine)}".encode())
    for tensor in (predictor.normalize.scale, predictor.normalize.offset, *predictor.network.state_dict().values()):
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
