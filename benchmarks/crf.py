"""The fully connected CRF.

Time, memory and nearness with 21 classes and 10 iterations. One thread. Time is the thread's processor time, to which other
work on the machine adds little; on an idle machine it is the time that passes. Memory is what the process holds at the peak of
a call above what it held before, on Linux alone. Nearness is the share of pixels with the same label as from the sums over all
pairs of pixels, and the mean over the pixels of their largest difference in probability, on a smaller scene.

Images, 513 x 513: "street", a scene of segue.data.synthetic.streets; "noise", each pixel drawn alone: then hardly two pixels
share a corner of the lattice, the worst that can come. The prediction is the truth at a sixteenth of the size, with noise.
"""

import time
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from harness import arguments, command_line, compare, summarize, write_record

from segue.data.synthetic.streets import Streets
from segue.inference.crf import CRFS, DenseCRF
from segue.labels import IGNORE
from segue.machine.memory import peak_memory

CLASSES = 21
SIZE = (513, 513)
SMALL = (64, 80)
IMAGES = ("street", "noise")


def draw(name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image, and probabilities with the blocks and the faults of a network's."""
    rng = np.random.default_rng(0)
    scene = Streets("val", count=1, size=size)[0]
    image = scene["image"] if name == "street" else rng.integers(0, 256, (*size, 3), np.uint8)
    mask = np.where(scene["mask"] == IGNORE, 0, scene["mask"])
    coarse = mask[8::16, 8::16]
    logits = 3 * (coarse == np.arange(CLASSES)[:, None, None]) + rng.normal(0, 1, (CLASSES, *coarse.shape))
    full = np.stack([cv2.resize(plane, size[::-1]) for plane in logits])
    exponentials = np.exp(full - full.max(axis=0))
    return image, (exponentials / exponentials.sum(axis=0)).astype(np.float32)


def full_sums(crf: DenseCRF, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The same mean field with each sum taken over all pairs of pixels."""
    places = np.stack(np.mgrid[: image.shape[0], : image.shape[1]], axis=-1).reshape(-1, 2)
    colors = image.reshape(-1, 3)
    kernels = (
        (crf.gaussian_weight, places / crf.gaussian_xy),
        (crf.bilateral_weight, np.concatenate([places / crf.bilateral_xy, colors / crf.bilateral_rgb], axis=1)),
    )
    kernel = np.zeros((len(places), len(places)), np.float32)
    for weight, points in kernels:
        squares = (points**2).sum(axis=1)
        values = np.exp(np.minimum(points @ points.T - squares / 2 - squares[:, None] / 2, 0)).astype(np.float32)
        norm = np.sqrt(weight / values.sum(axis=1))
        kernel += norm * values * norm[:, None]
    unary = np.log(np.maximum(probabilities, 1e-5)).reshape(len(probabilities), -1)
    message: np.ndarray | float = 0.0
    for _ in range(crf.iterations + 1):
        exponentials = np.exp(unary + message - (unary + message).max(axis=0))
        q = exponentials / exponentials.sum(axis=0)
        message = q @ kernel
    return q.reshape(probabilities.shape)


def nearness() -> dict[str, dict[str, float]]:
    image, probabilities = draw("street", SMALL)
    found = {}
    for name, crf in CRFS.items():
        q, expected = crf(image, probabilities), full_sums(crf, image, probabilities)
        labels = [p.argmax(axis=0) for p in (probabilities, q, expected)]
        found[name] = {
            "changed": round(float((labels[2] != labels[0]).mean()), 4),
            "same_label": round(float((labels[2] == labels[1]).mean()), 4),
            "difference": round(float(np.abs(q - expected).max(axis=0).mean()), 4),
        }
    return found


def main() -> None:
    options = arguments(__doc__, rounds=5)
    cv2.setNumThreads(1)
    size = SMALL if options.quick else SIZE
    results: dict[str, Any] = {}
    for name in IMAGES:
        sides = {key: partial(crf, *draw(name, size)) for key, crf in CRFS.items()}
        times = compare(sides, options.rounds, clock=time.thread_time)
        memory = {key: peak_memory(side, torch.device("cpu")) for key, side in sides.items()}
        results[name] = {
            key: {**figures, "extra_MB": None if memory[key] is None else round(memory[key] / 1e6)}
            for key, figures in summarize(times, next(iter(sides))).items()
        }
    notes = [
        f"{key}, beside the sums over all pairs of pixels on a street of {SMALL[0]} x {SMALL[1]} pixels: the same label in "
        f"{found['same_label']:.2%} of pixels, probabilities that differ by {found['difference']:.4f} in the mean; the CRF "
        f"changes {found['changed']:.2%} of labels."
        for key, found in nearness().items()
    ]
    write_record(options.out, command_line(), results, notes=notes)


if __name__ == "__main__":
    main()
