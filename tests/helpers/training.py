"""A tiny CamVid, and the recipe that trains on it in seconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image

from segue.data.camvid import CAMVID
from segue.recipes import Recipe, get_recipe


def write_camvid(root: Path, size: tuple[int, int] = (40, 56), **counts: int) -> Path:
    """CamVid's folders with scenes of a few coloured rectangles, whose colours tell their classes; some void."""
    random = np.random.default_rng(0)
    for split, count in {"train": 10, "val": 5, "test": 3, **counts}.items():
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            mask = np.zeros(size, np.uint8)
            for _ in range(12):
                top, left = random.integers(0, size[0] - 8), random.integers(0, size[1] - 8)
                height, width = random.integers(4, 24, 2)
                mask[top : top + height, left : left + width] = random.integers(0, 12)
            colors = np.array([*CAMVID.palette, (0, 0, 0)])
            image = colors[mask] + random.integers(-20, 20, (*size, 3))
            PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / split / f"{number:03}.png")
            PIL.Image.fromarray(mask).save(root / f"{split}annot" / f"{number:03}.png")
    return root


def tiny_recipe(root: Path, **fields: object) -> Recipe:
    """ENet on the tiny CamVid: 2 steps an epoch."""
    defaults = {"root": str(root), "epochs": 2, "batch_size": 5, "crop": (32, 40), "workers": 0}
    defaults |= {"learning_rate": 5e-3, "before": "", "memory_format": "channels_first"}
    return replace(get_recipe("enet-camvid"), **{**defaults, **fields})


def as_arguments(recipe: Recipe) -> list[str]:
    """The fields of tiny_recipe as command-line arguments."""
    names = ("root", "epochs", "batch_size", "crop", "workers", "learning_rate", "before", "memory_format")
    values = {name: getattr(recipe, name) for name in names}
    return [
        argument
        for name, value in values.items()
        for argument in (f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)]))
    ]
