"""Time, memory and nearness of segue's fully connected CRF, with 21 classes and 10 iterations.

    python benchmarks/crf.py

One thread. Time is the thread's processor time, to which other work on the machine adds little; on an idle machine it is the time
that passes. Memory is what the process holds at the peak of a call above what it held before, on Linux alone. Nearness is the
share of pixels with the same label as from the sums over all pairs of pixels, and the mean over the pixels of their largest
difference in probability, on a smaller scene.

Images, 513 x 513: "street", a scene of segue.data.streets; "noise", each pixel drawn alone: then hardly two pixels share a corner
of the lattice, the worst that can come. The prediction is the truth at a sixteenth of the size, with noise.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segue.crf import CRFS, DenseCRF
from segue.data.streets import Streets
from segue.labels import IGNORE

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


def peak(name: str) -> float | None:
    """MB that the process holds at the peak of a call, above what it held before; None where there is no /proc to ask."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    image, probabilities = draw(name, SIZE)
    reset.write_text("5")  # the peak begins anew
    before = status.read_text()
    CRFS["deeplabv2"](image, probabilities)
    after = status.read_text()
    kilobytes = [int(text.split("VmHWM:")[1].split()[0]) for text in (before, after)]
    return round((kilobytes[1] - kilobytes[0]) / 1024, 1)


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds by image and parameters, and MB by image."""
    drawn = {name: draw(name, SIZE) for name in IMAGES}
    for image, probabilities in drawn.values():
        CRFS["deeplabv2"](image, probabilities)
    seconds: dict[str, dict[str, list[float]]] = {name: {crf: [] for crf in CRFS} for name in IMAGES}
    for _ in range(rounds):
        for name, pair in drawn.items():
            for key, crf in CRFS.items():
                start = time.thread_time()
                crf(*pair)
                seconds[name][key].append(time.thread_time() - start)
    return {
        name: {"peak_mb": peak(name), "seconds": {key: spread(values) for key, values in found.items()}}
        for name, found in seconds.items()
    }


def spread(values: list[float]) -> dict[str, float]:
    quarter, median, three_quarters = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": round(median, 3), "quartile_1": round(quarter, 3), "quartile_3": round(three_quarters, 3)}


def machine() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": cv2.getNumThreads(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "numba")},
            "opencv": cv2.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results/crf.json"))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    about = machine()
    near = nearness()
    results = measure(options.rounds)

    print(f"{SIZE[0]} x {SIZE[1]} pixels, {CLASSES} classes, 10 iterations; {options.rounds} rounds; median (quartiles)")
    print(f"{about['threads']} thread; {about['cores']} cores of {about['processor']}, load {about['load']} at the start")
    print(", ".join(f"{name} {number}" for name, number in about["versions"].items()))
    print(f"\n{'image':8}{'peak MB':>8}  {'parameters':16}{'seconds':>24}")
    for name, found in results.items():
        for key, s in found["seconds"].items():
            cell = f"{s['median']:.2f} ({s['quartile_1']:.2f} to {s['quartile_3']:.2f})"
            print(f"{name:8}{found['peak_mb'] or '?':>8}  {key:16}{cell:>24}")
    print(f"\nagainst the sums over all pairs, street of {SMALL[0]} x {SMALL[1]} pixels")
    print(f"{'parameters':16}{'same label':>12}{'difference':>12}{'changed by the CRF':>20}")
    for key, shares in near.items():
        print(f"{key:16}{shares['same_label']:>12.2%}{shares['difference']:>12.4f}{shares['changed']:>20.2%}")

    record = {"command": "python benchmarks/crf.py", "rounds": options.rounds, "classes": CLASSES, "size": SIZE, "small": SMALL}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**record, "machine": about, "images": results, "nearness": near}, indent=2) + "\n")


if __name__ == "__main__":
    main()
