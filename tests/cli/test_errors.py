"""Whatever goes wrong, the command line says it in a line, with a way out that works."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from helpers.commands import call
from segue import cli
from segue.cli import one_line

TORCH = "[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: can't allocate memory: you tried to.\nframe #0"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError(TORCH), f"there is not enough memory: {TORCH.splitlines()[0]}; take smaller images, crops or batches"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto"), "there is not enough memory: CUDA out of memory. Tried;"),
        (MemoryError(), "there is not enough memory: MemoryError; take"),
        (RuntimeError("stack expects each tensor\nframe #0: c10"), "stack expects each tensor"),
        (RuntimeError(), "RuntimeError"),
        (
            ValueError("Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
                       "segue.data.samples.DataError: sample 2: the mask has no shape\n"),
            "sample 2: the mask has no shape",
        ),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(args: Sequence[str]) -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "models", fails)
    assert call(monkeypatch, "models") == 2
    assert one_line(error).startswith(line)
    assert capsys.readouterr().err == f"segue: {one_line(error)}\n"


def write(root: Path) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            random = np.random.default_rng(number + 9 * count)
            for kind, array in (
                ("images", random.integers(0, 255, (64, 64, 3), np.uint8)),
                ("masks", random.integers(0, 2, (64, 64), np.uint8)),
            ):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(array).save(root / split / kind / f"{number}.png")
    (root / "segue.yaml").write_text("names: [ground, disc]\n")
    return root


def test_a_run_goes_on_after_its_data_have_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("d"))
    recipe = [
        "enet-camvid-fast",
        "--data",
        "folder",
        "--root",
        "d",
        "--crop",
        "64",
        "64",
        "--workers",
        "0",
        "--memory-format",
        "channels_first",
    ]
    assert call(monkeypatch, "train", *recipe, "--epochs", "1", "--batch-size", "2", "--out", "run") == 0
    saved = json.loads(Path("run/recipe.json").read_text())
    Path("run/recipe.json").write_text(json.dumps({**saved, "epochs": 2}))
    Path("d").rename("moved")
    assert call(monkeypatch, "train", "--resume", "run") == 2
    assert "name yours with --root" in capsys.readouterr().err
    assert call(monkeypatch, "train", "--resume", "run", "--root", "nowhere") == 2
    assert "there is no folder nowhere" in capsys.readouterr().err
    assert json.loads(Path("run/recipe.json").read_text())["root"] == str(tmp_path / "d")
    assert call(monkeypatch, "train", "--resume", "run", "--root", "moved") == 0
    assert "epoch 2/2" in capsys.readouterr().out
    assert json.loads(Path("run/recipe.json").read_text()) == {**saved, "epochs": 2, "root": str(tmp_path / "moved")}
    assert call(monkeypatch, "train", "--resume", "run", "--epochs", "5") == 2
    assert (
        "--epochs cannot be changed; begin a new run from it: segue train RECIPE --init run --epochs" in capsys.readouterr().err
    )


def test_too_few_images_are_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("segue.training.trial_step.time_formats", lambda *_, **__: pytest.fail("it is measured"))
    write(tmp_path / "d")
    assert (
        call(
            monkeypatch,
            "train",
            "enet-camvid-fast",
            "--data",
            "folder",
            "--root",
            tmp_path / "d",
            "--crop",
            64,
            64,
            "--out",
            tmp_path / "run",
        )
        == 2
    )
    assert (
        "has 4 samples, fewer than batch_size (=10); make it smaller; of few large scenes, cut tiles" in capsys.readouterr().err
    )
