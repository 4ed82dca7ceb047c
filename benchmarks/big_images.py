"""Memory of big images, from file to file.

`segue predict`, each time as a command of its own, with the ENet that ships with segue: a photo of 480 x 360 pixels (width x
height), and images of 20,000 pixels' width in bands, of which a quarter of the height should take as much memory as the whole.
They are drawn streets of 2000 x 2000 pixels, side by side and one below the other. Memory is the most that the process
held (its maximum resident set): Python, torch and the network too, which the photo shows; "more than the photo" is what the
size costs. The images are PNGs; "TIFF" is of 16 bits, stored without compression.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from harness import arguments, command_line, write_record

from segue.data.synthetic.streets import Streets

SCENE = 2000


def draw(path: Path, height: int, width: int) -> None:
    size = min(SCENE, height), min(SCENE, width)
    scene = Streets("val", count=1, size=size)[0]["image"]
    image = np.tile(scene, (height // size[0], width // size[1], 1))
    if path.suffix == ".tif":
        tifffile.imwrite(path, image.astype(np.uint16) * 257, photometric="rgb")
    else:
        cv2.imwrite(str(path), image)


def predict(image: Path, out: Path) -> float:
    """Megabytes at the peak."""
    process = subprocess.Popen([sys.executable, "-m", "segue", "predict", str(image), "--out", str(out)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"segue predict {image} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 2**10


def main() -> None:
    options = arguments(__doc__, side=20_000)
    side = 2 * SCENE if options.quick else options.side
    sizes = {
        "photo.png": (360, 480), "quarter.png": (side // 4, side), "whole.png": (side, side), "quarter.tif": (side // 4, side),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (height, width) in sizes.items():
            image = Path(folder) / name
            # In a process of its own: what this one has ever held counts as held by those that it starts.
            drawing = multiprocessing.get_context("spawn").Process(target=draw, args=(image, height, width))
            drawing.start()
            drawing.join()
            megabytes = predict(image, Path(folder) / "labels")
            kind = "TIFF, " if image.suffix == ".tif" else ""
            rows.append(
                {
                    "case": "", "side": f"{kind}{width:,} x {height:,}", "unit": "MB", "median": round(megabytes),
                    "MB_more_than_the_photo": round(megabytes - (rows[0]["median"] if rows else megabytes)),
                }
            )  # fmt: skip
            image.unlink()
    write_record(options.out, command_line(), rows)


if __name__ == "__main__":
    main()
