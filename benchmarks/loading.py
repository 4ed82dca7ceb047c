"""Training samples a second: read, decode, random scale, crop, mirror image and colours, to uint8 tensors.

Without --root, 48 drawn street scenes of 360 x 480 pixels are written as files: "jpeg" with photographs in JPEG (quality 95) and
masks in PNG, and "png" with both in PNG; --root takes CamVid's training split. Both sides read the same files in one thread and
give tensors of 360 x 480 with masks filled with 255: scale .5 to 2, crop, mirror image, brightness, contrast and saturation by
up to a quarter. A round is every image once. Included: all from the file to the tensors of one
sample, segue's checks of shapes, types and labels too; left out: the making of batches.

torchvision: decode_image (faster than Pillow for it), ScaleJitter, RandomCrop with padding, RandomHorizontalFlip,
ColorJitter without hue, on tv_tensors of uint8; the scale is drawn as segue draws it, evenly on a logarithmic axis (its own law
draws larger ones, which take longer). "torchvision, Pillow": the same on Pillow's images, which torchvision's data sets give
and its reference training takes unless told otherwise. "segue, cached": the decoded images in memory, as training does where they
fit. Files are in the page cache, and seconds are those of the thread, so that other work on the machine adds little.
"""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
from harness import arguments, command_line, compare, summarize, write_record
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from segue.data.batches.cache import cached
from segue.data.batches.loading import TrainingSamples
from segue.data.batches.transforms import Augment
from segue.data.camvid import CamVid
from segue.data.files import FileSamples
from segue.data.samples import Samples
from segue.data.synthetic.streets import STREETS, Streets
from segue.labels import IGNORE

CROP, SCALE, JITTER = (360, 480), (0.5, 2.0), 0.25


class LogScaleJitter(v2.ScaleJitter):
    """ScaleJitter with factors as segue draws them."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = (math.log(bound) for bound in self.scale_range)
        factor = math.exp(low + float(torch.rand(1)) * (high - low))
        height, width = v2.query_size(flat_inputs)
        return {"size": (int(height * factor), int(width * factor))}


def torchvision_samples(pairs: list[tuple[Path, Path]], transform: Callable[..., Any]) -> Callable[[int], Any]:
    def sample(index: int) -> Any:
        image, mask = (io.decode_image(io.read_file(str(path))) for path in pairs[index])
        return transform(tv_tensors.Image(image), tv_tensors.Mask(mask[0]))

    return sample


def pillow_samples(pairs: list[tuple[Path, Path]], transform: Callable[..., Any]) -> Callable[[int], Any]:
    def sample(index: int) -> Any:
        image, mask = (PIL.Image.open(path) for path in pairs[index])
        image, mask = transform(image.convert("RGB"), tv_tensors.Mask(mask))
        return v2.functional.pil_to_tensor(image), mask

    return sample


def torchvision_pipeline(scale: tuple[float, float] = SCALE, flip: float = 0.5, jitter: float = JITTER) -> Callable[..., Any]:
    fill = {tv_tensors.Image: 0, PIL.Image.Image: 0, tv_tensors.Mask: IGNORE}
    steps = [
        LogScaleJitter(CROP, scale),
        v2.RandomCrop(CROP, pad_if_needed=True, fill=fill),
        v2.RandomHorizontalFlip(flip),
        v2.ColorJitter(jitter, jitter, jitter),
    ]
    return v2.Compose(steps)


def write_streets(folder: Path, count: int, suffix: str) -> FileSamples:
    """Drawn scenes as files; their masks have the numbers of the classes, and 255."""
    streets, pairs = Streets("train", count, CROP), []
    for index in range(count):
        sample = streets[index]
        pairs.append((folder / f"{index}{suffix}", folder / f"{index}_mask.png"))
        PIL.Image.fromarray(sample["image"]).save(pairs[-1][0], quality=95)
        PIL.Image.fromarray(sample["mask"]).save(pairs[-1][1])
    numbers = {**{number: number for number in range(len(STREETS))}, IGNORE: IGNORE}
    return FileSamples(pairs, STREETS, numbers)


def check_equal(samples: FileSamples) -> None:
    """Where nothing is drawn both sides give the same pixels; twice as large, the same but for the rounding."""
    for scale in (1.0, 2.0):
        pipeline = torchvision_samples(samples.pairs, torchvision_pipeline((scale, scale), flip=0, jitter=0))
        ours = TrainingSamples(samples, Augment(CROP, (scale, scale), flip=False), len(samples.labels), 0)
        one, other = ours[0, 0], pipeline(0)
        for found, shape in ((one["image"], (3, *CROP)), (one["mask"], CROP)):
            if found.shape != shape or found.dtype != torch.uint8:
                raise SystemExit(f"segue gives {found.shape} of {found.dtype}")
        if other[0].shape != (3, *CROP) or other[0].dtype != torch.uint8 or other[1].shape != CROP:
            raise SystemExit(f"torchvision gives {other[0].shape} of {other[0].dtype}")
        if scale == 1 and not torch.equal(one["image"], other[0]):
            raise SystemExit("the sides decode to different images")
    factor = cv2.resize(samples[0]["image"], None, fx=2, fy=2)
    peer = v2.functional.resize(torch.from_numpy(samples[0]["image"]).permute(2, 0, 1), [720, 960])
    if int(np.abs(factor.astype(int) - peer.permute(1, 2, 0).numpy()).max()) > 1:
        raise SystemExit("the sides enlarge differently")


def each(sample: Callable[[int], Any], count: int) -> Callable[[], None]:
    def run() -> None:
        for index in range(count):
            sample(index)

    return run


def measure(samples: FileSamples, count: int, rounds: int) -> dict[str, Any]:
    check_equal(samples)
    augment, kept = Augment(CROP, SCALE, True, JITTER), cached(samples, "memory")
    epoch = iter(range(10**9))

    def segue(source: Samples) -> Callable[[int], Any]:
        training = TrainingSamples(source, augment, len(source.labels), 0)
        return lambda index: training[next(epoch), index]

    sides = {
        "segue": each(segue(samples), count),
        "segue, cached": each(segue(kept), count),
        "torchvision": each(torchvision_samples(samples.pairs, torchvision_pipeline()), count),
        "torchvision, Pillow": each(pillow_samples(samples.pairs, torchvision_pipeline()), count),
    }
    found = summarize(compare(sides, rounds, time.thread_time), "segue")
    for figures in found.values():
        figures["images_per_second"] = round(count / figures["median"], 1)
    return found


def main() -> None:
    options = arguments(__doc__, root="")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    count = 8 if options.quick else 48
    results = {}
    if options.root:
        samples = CamVid(options.root, "train")
        results["camvid"] = measure(samples, min(count, len(samples)), options.rounds)
    else:
        for case, suffix in (("jpeg", ".jpg"), ("png", ".png")):
            with tempfile.TemporaryDirectory() as folder:
                results[case] = measure(write_streets(Path(folder), count, suffix), count, options.rounds)
    write_record(options.out, command_line(), results)


if __name__ == "__main__":
    main()
