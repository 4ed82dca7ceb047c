"""Tiny data in true layouts, and the recipe that trains on it in seconds."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from segue.cli import main
from segue.data.camvid import CAMVID
from segue.recipes import Recipe, get_recipe

torch.set_num_threads(1)  # the images are too small to share


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


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the machine does best is measured anew, and the user's cache left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("camvid"))


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


def call(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """The command line in this process; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["segue", *map(str, args)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def start_segue(*args: object, **env: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "segue", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **env},
    )  # fmt: skip


def run_segue(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    process = start_segue(*args, **env)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
