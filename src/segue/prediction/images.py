"""From image files to files of their labels: some are read and written while others are labelled."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
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
from segue.labels import IGNORE, Image, Mask
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
    void: NDArray[np.bool_] | None = None
    """(H, W), which pixels show nothing and get no class, if there are any."""
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

    tiles: label all images in tiles, as is done with large ones (segue.prediction.large_images); of TIFFs, the label map is a
    .tif then. An image that was interrupted goes on where it stopped.
    progress: called with the path of such an image, and the share of it that is done.
    """
    sources = {source.resolve() for source in targets}
    kinds = () if submission else ("overlay", "uncertainty") if samples else ("overlay",)
    for target in targets.values():
        for path in (target, *(beside(target, kind) for kind in kinds)):
            check_target(path, sources)
    work = Labeller(predictor, sources, crf, samples, submission, progress)
    # Items are drawn in this thread, where is_large may look into the files.
    drawn = (Photo(source, target, tiled=tiles or is_large(source)) for source, target in targets.items())
    photos = ordered(work.read, drawn, READERS, AHEAD, lambda photo: photo.size)
    with closing(photos), closing(ordered(work.write, map(work.label, photos), WRITERS, BEHIND)) as results:
        yield from results


@dataclass
class Labeller:
    """The three steps of an image: reading and writing run in threads, labelling in the caller's."""

    predictor: Predictor
    sources: Set[Path]
    """All images, resolved, none of which may be overwritten."""
    crf: DenseCRF | None
    samples: int
    submission: bool
    progress: Callable[[Path, float], None]

    @cached_property
    def identity(self) -> str:
        return identify(self.predictor)  # which takes a while

    def read(self, photo: Photo) -> Photo:
        if not photo.tiled:
            try:
                photo.image, photo.seen, photo.void = read_photo(photo.source, self.predictor.channels)
            except (ValueError, MemoryError) as error:
                photo.error = describe(photo.source, error)
        return photo

    def label(self, photo: Photo) -> Photo:
        try:
            if photo.tiled:
                self.label_in_tiles(photo)
            elif photo.image is not None and photo.seen is not None:
                photo.mask, photo.uncertainty = label_photo(self.predictor, photo.image, photo.seen, self.crf, self.samples)
                if photo.void is not None:
                    photo.mask[photo.void] = IGNORE
        except (ValueError, MemoryError, torch.OutOfMemoryError) as error:
            photo.error = describe(photo.source, error)
        return photo

    def label_in_tiles(self, photo: Photo) -> None:
        if self.crf or self.samples or self.submission:
            raise ValueError("an image of this size is labelled in tiles, without --crf, --samples and --cityscapes-submission")
        photo.target = photo.target.with_suffix(suffix_for(photo.source))
        check_target(photo.target, self.sources)
        photo.target.parent.mkdir(parents=True, exist_ok=True)
        progress = partial(self.progress, photo.source)
        progress(0.0)
        photo.counts = label_file(self.predictor, photo.source, photo.target, identity=self.identity, progress=progress)

    def write(self, photo: Photo) -> Labelled:
        if photo.image is not None and photo.mask is not None:
            photo.target.parent.mkdir(parents=True, exist_ok=True)
            self.write_pictures(photo.target, photo.image, photo.mask, photo.uncertainty)
            photo.counts = cv2.calcHist([photo.mask], [0], None, [256], [0, 256]).reshape(-1)
        shape = () if photo.mask is None else photo.mask.shape
        return Labelled(photo.source, photo.target, photo.error, shape, self.shares(photo.counts))

    def write_pictures(self, target: Path, image: Image, mask: Mask, uncertainty: NDArray[np.float32] | None) -> None:
        if self.submission:
            write_image(target, CLASS_IDS[mask])
            return
        write_image(target, mask)
        write_image(beside(target, "overlay"), overlay(image, mask, self.predictor.labels))
        if uncertainty is not None:
            write_image(beside(target, "uncertainty"), heat_map(uncertainty))

    def shares(self, counts: NDArray[np.number] | None) -> tuple[float, ...]:
        """How much of the labelled pixels each class has; empty for an image that is left out."""
        if counts is None:
            return ()
        counts = counts[: len(self.predictor.labels)]
        return tuple(float(count) / max(1.0, float(counts.sum())) for count in counts)


def identify(predictor: Predictor) -> str:
    """What tells a predictor's results from those of another; of a network that is no module, each time another."""
    if not isinstance(predictor.network, torch.nn.Module):
        return uuid.uuid4().hex
    digest = sha256(f"{predictor.labels} {predictor.device.type} {type(predictor.engine)}".encode())
    for tensor in (predictor.normalize.scale, predictor.normalize.offset, *predictor.network.state_dict().values()):
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
