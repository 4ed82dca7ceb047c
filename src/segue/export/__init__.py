"""A checkpoint as one file that needs neither segue nor torch, and the proof that it says the same."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segue.checkpoint import Card, load_checkpoint
from segue.data.samples import Samples
from segue.engines.conversion import need, quantize_onnx, quantize_openvino, to_onnx
from segue.evaluation.loop import check_labels
from segue.export.files import SUFFIXES, ExportedModel, describe, save_onnx, save_openvino
from segue.export.graph import PREFIX, build_graph
from segue.export.parity import Example, Parity, compare, drawn_examples, folder_examples, readable, sample_examples
from segue.images import Raster
from segue.images.files import WHITE
from segue.inference import Predictor
from segue.models.base import as_segmentation_model, pad_to_multiple

__all__ = ["ExportError", "ExportedModel", "Parity", "export"]

FEWEST, MOST = 10, 100  # images that calibrate


class ExportError(ValueError):
    """The file that was made does not say what the network says; its `parity` tells more."""

    def __init__(self, message: str, found: Parity) -> None:
        super().__init__(message)
        self.parity = found


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    model: nn.Module | None = None,
    images: str | Path | None = None,
    samples: Samples | None = None,
    kind: str = "uint8",
    calibrate: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Parity:
    """Write the checkpoint as one ONNX or OpenVINO file, by the suffix of `out`, and compare what both say.

    model: the module of a checkpoint of one's own. images: a folder of images to compare on; samples: labelled ones. Without
    either, drawn streets. kind: of the images that the file takes, uint8, uint16 or float32. calibrate: a folder of images for
    calculating with integers of 8 bits, which needs `samples`. say, progress: told of each step, and of the images.

    `out` appears, or is replaced, when all is done. ExportError if too many pixels differ, or with 8 bits if the mean IU drops by
    more than half a point; ValueError if something that was given does not fit.
    """
    out = Path(out)
    check_request(out, kind, calibrate, samples is not None)
    network, card = load_checkpoint(checkpoint, model)
    if images and card.depth:
        raise ValueError("this network takes depth too, which a folder of images does not have; compare on a data set with it")
    predictor = Predictor.of(network, card, "cpu")
    examples, source = find_examples(card, network, images, samples, kind)
    if samples is not None:
        check_labels(predictor, samples)
    if images:
        for example in progress(examples):  # a broken one is named before the work, not after it
            example()
    with working_folder(out) as folder:
        made = folder / out.name
        graph, save = make_graph(predictor, network, card, out.suffix, kind, calibrate, say)
        entries = describe(checkpoint, card, input=kind, int8=calibrate is not None)
        save(graph, made, entries)
        say("comparing it with the network")
        found = compare(predictor, ExportedModel(made), examples, source, progress)
        fault = found.fault(calibrate is not None)
        if fault:
            raise ExportError(f"{out} was not written: {fault}", found)
        save(graph, made, {**entries, "parity": json.dumps(found.to_json())})
        for file in sorted(folder.iterdir()):  # .bin before .xml
            file.replace(out.with_name(file.name))
    return found


def make_graph(
    predictor: Predictor, network: nn.Module, card: Card, suffix: str, kind: str, calibrate: str | Path | None,
    say: Callable[[str], None],
) -> tuple[Any, Callable[[Any, Path, Mapping[str, str]], None]]:  # fmt: skip
    """What is written into a file of this suffix, in 8 bits if there are images to calibrate with, and what writes it."""
    say(f"writing {card.network} as ONNX")
    written = to_onnx(network, in_channels=card.in_channels)
    given = calibration(calibrate, card, kind, say) if calibrate is not None else []
    if given:
        say(f"calibrating with {len(given)} images")
    if suffix == ".onnx":
        if given:
            written = quantize_onnx(written, [network_input(predictor, image) for _, image, _, _ in given])
        return build_graph(written, network, card, kind), save_onnx
    graph: Any = need("openvino").Core().read_model(build_graph(written, network, card, kind).SerializeToString())
    if given:
        graph = quantize_openvino(graph, [image for _, image, _, _ in given], ignored=f"^{PREFIX}.*")
    return graph, save_openvino


def check_request(out: Path, kind: str, calibrate: str | Path | None, labelled: bool) -> None:
    """ValueError, before anything takes time, if this cannot be done or is not what segue knows."""
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out} must end in .onnx (ONNX) or .xml (OpenVINO), which says what is written")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file in it, such as {out / ('model' + out.suffix)}")
    if kind not in WHITE:
        raise ValueError(f"input (={kind}) must be one of {', '.join(WHITE)}")
    if calibrate is not None and not labelled:
        raise ValueError(
            "8 bits cost accuracy, and how much must be measured on images with truth: name a labelled set too "
            "(--data NAME --root DIR), or leave out --int8"
        )
    for name in ("onnx", "onnxscript", *(("onnxruntime",) if out.suffix == ".onnx" else ("openvino",))):
        need(name)
    if calibrate is not None and out.suffix == ".xml":
        need("nncf")


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out`, gone in the end whatever happens; ValueError if nothing can be written there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error}; name a file in a folder that is yours") from None
    with folder as name:
        yield Path(name)


def find_examples(
    card: Card, network: nn.Module, images: str | Path | None, samples: Samples | None, kind: str
) -> tuple[list[Callable[[], Example]], str]:
    """What is compared on, and its name in the report."""
    if samples is not None:
        return sample_examples(samples, card, kind), "labelled images"
    if images is not None:
        return folder_examples(Path(images), card.in_channels, kind), str(images)
    return drawn_examples(card, kind, as_segmentation_model(network).min_size), "drawn streets"


def calibration(folder: str | Path, card: Card, kind: str, say: Callable[[str], None]) -> list[Example]:
    """The images that calibrate; ValueError if there are too few that can be read."""
    if card.depth:
        raise ValueError("this network takes depth too, which a folder of images does not have, so --int8 cannot calibrate it")
    found = list(readable(folder_examples(Path(folder), card.in_channels, kind), MOST, say))
    if len(found) < FEWEST:
        raise ValueError(f"{folder} has {len(found)} images that can be read, and it takes {FEWEST} at least to calibrate")
    return found


def network_input(predictor: Predictor, image: Raster) -> NDArray[np.float32]:
    """What the network sees of an image, (1, C, H, W)."""
    with torch.inference_mode():
        network = as_segmentation_model(predictor.network)
        return pad_to_multiple(predictor.see(image), network.stride, plus=int(network.aligned)).cpu().numpy()
