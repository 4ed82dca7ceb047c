"""How long a prediction takes on the machine at hand, where the time goes, and how far from the machine's limit that is."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segue.checkpoint import Card, find_checkpoint, load_checkpoint
from segue.data.synthetic.streets import Streets
from segue.images import Raster
from segue.inference import Predictor
from segue.labels import IGNORE, Labels
from segue.machine.memory import peak_memory
from segue.machine.peak_flops import peak_gflops
from segue.machine.timing import now
from segue.models import MODELS, create_model, list_models
from segue.models.counting import multiply_adds
from segue.suggest import did_you_mean

INCLUDED = (
    "From a uint8 image in memory to its uint8 label map in memory: normalising, the network, upsampling and argmax; "
    "no reading, decoding or writing of files."
)


@dataclass(frozen=True)
class Timing:
    """What one engine takes for an image. Times in seconds; those of the parts are medians."""

    engine: str
    how: str
    """What computed, in one line; of auto, what it chose."""
    runs: int
    median: float
    quartile_1: float
    quartile_3: float
    p95: float
    prepare: float
    """The image made a tensor, normalised and resized."""
    network: float
    last_step: float
    """Upsampling of the scores and argmax, and the labels' way back."""
    extra_memory: int | None
    """Bytes at the peak of the first prediction of this size above those held before it, in which the engine gets ready as well;
    None where that cannot be found out."""
    multiply_adds: int
    """Of the network's convolutions and matrix products."""
    limit: float
    """The most that the machine can do, in 10^9 operations a second, by `peak_gflops`; a multiply-add is two of them."""

    @property
    def share(self) -> float:
        """What the network does of the limit while it runs. Fewer bits or Winograd's algorithm may take it above 1."""
        return 2e-9 * self.multiply_adds / self.network / self.limit

    @property
    def images_per_second(self) -> float:
        return 1 / self.median


def network_of(name: str, classes: int = 19) -> tuple[nn.Module, Card, bool]:
    """A checkpoint's network, or that of `segue models` with random weights; its card; whether it is trained."""
    if find_checkpoint(name) is not None:
        return *load_checkpoint(name), True
    if name not in MODELS:
        known = [*list_models(), "enet-camvid"]
        raise ValueError(f'"{name}" is neither a checkpoint nor a network of segue models{did_you_mean(Path(name).name, known)}')
    if not 1 <= classes <= IGNORE:
        raise ValueError(f"classes (={classes}) must be 1 to {IGNORE}")
    model = create_model(name, classes)
    plain = (0.5,) * model.in_channels
    labels = Labels.from_names([f"class {i}" for i in range(classes)])
    return model.eval(), Card(name, labels, model.in_channels, mean=plain, std=plain), False


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from a text such as 1024x2048."""
    numbers = text.lower().split("x")
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise ValueError(f'size (="{text}") must be HEIGHTxWIDTH in pixels, such as 1024x2048')
    return int(numbers[0]), int(numbers[1])


def street(size: tuple[int, int], channels: int) -> Raster:
    """A drawn street as an image of so many channels."""
    height, width = size
    scene = Streets("val", count=1, size=(512, 1024))[0]["image"]
    rows, columns = np.arange(height) * 512 // height, np.arange(width) * 1024 // width
    picture: Raster = scene[rows[:, None, None], columns[:, None], np.arange(channels) % 3]
    return picture


def time_engine(
    model: nn.Module, card: Card, size: tuple[int, int], engine: str, device: str = "", seconds: float = 20.0, runs: int = 5
) -> Timing:
    """Predict a drawn street of (height, width) for so many seconds, and `runs` times at least.

    Two predictions come before: a small one, in which all that is compiled gets ready, and one whose memory is measured.
    """
    predictor = Predictor.of(model, card, device, engine)

    def draw(height: int, width: int) -> tuple[Any, ...]:
        image = street((height, width), predictor.channels - predictor.uses_depth)
        return (image, np.full((height, width), 2.0, np.float32)) if predictor.uses_depth else (image,)

    least = max(64, getattr(model, "min_size", 1))
    inputs = draw(*size)
    predictor(*draw(least, least))
    extra = peak_memory(lambda: predictor(*inputs), predictor.device)
    watch = Stopwatch(predictor)
    end = time.perf_counter() + seconds
    times: list[tuple[float, float, float]] = []
    while len(times) < runs or time.perf_counter() < end:
        times.append(watch.time(*inputs))
    prepare, network, last = (float(part) for part in np.median(times, axis=0))
    quarter, median, three_quarters, p95 = (float(t) for t in np.quantile(np.sum(times, axis=1), [0.25, 0.5, 0.75, 0.95]))
    describe = getattr(watch.engine, "describe", None)
    limit = peak_gflops(torch.get_num_threads(), predictor.device.type)
    return Timing(
        engine, describe() if describe else engine, len(times), median, quarter, three_quarters, p95, prepare, network, last,
        extra, multiply_adds(model, watch.input), limit,
    )  # fmt: skip


class Stopwatch:
    """Seconds of the parts of a prediction. Between them it waits for the GPU, where one computes."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.marks: list[float] = []
        self.engine = predictor.engine
        self.input = torch.empty(0)
        predictor.engine = self.run_engine

    def run_engine(self, x: Tensor) -> Tensor:
        self.input = x
        self.mark()
        scores = self.engine(x)
        self.mark()
        return scores

    def time(self, *inputs: Any) -> tuple[float, float, float]:
        """Of preparing the image, of the network and of the last step."""
        self.marks = []
        self.mark()
        self.predictor(*inputs)
        self.mark()
        start, prepared, scored, end = self.marks
        return prepared - start, scored - prepared, end - scored

    def mark(self) -> None:
        self.marks.append(now())
