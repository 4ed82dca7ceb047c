"""What the build of commit 72b0ba6 has written is still read: a checkpoint, a run that was interrupted, an exported file.

tests/old_build/run is segnet_basic (width 4) after two epochs on the tiny CamVid of helpers.training, its recipe.json changed to
three; old.onnx is its best/ as `segue export` wrote it; labels.npz has an image and the label map that the old build gave it.
"""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.extras import needed
from helpers.training import write_camvid
from segue import Predictor, load_checkpoint, train
from segue.training.run_folder import load_recipe

OLD = Path(__file__).with_name("old_build")


def agreement(labels: np.ndarray) -> float:
    """The share of equal pixels: other processors round logits that nearly tie to the other side."""
    return float(np.mean(np.load(OLD / "labels.npz")["labels"] == labels))


def test_an_old_checkpoint_predicts_as_it_did() -> None:
    model, card = load_checkpoint(OLD / "run")
    assert (card.network, card.options, len(card.labels)) == ("segnet_basic", {"width": 4}, 11)
    assert agreement(Predictor.of(model, card)(np.load(OLD / "labels.npz")["image"])) > 0.99


def test_an_old_run_is_resumed(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD / "run", tmp_path / "run"))
    data = write_camvid(tmp_path / "camvid", size=(96, 128))
    train(replace(load_recipe(run), root=str(data)), run, resume=True)
    with (run / "metrics.csv").open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file)]
    assert epochs == ["1", "2", "3"]
    assert load_checkpoint(run / "last")[1].training["epochs"] == 3


@pytest.mark.runtimes
def test_an_old_exported_file_gives_its_labels() -> None:
    needed("onnxruntime")
    from segue.export import ExportedModel

    assert agreement(ExportedModel(OLD / "old.onnx")(np.load(OLD / "labels.npz")["image"])) > 0.99
