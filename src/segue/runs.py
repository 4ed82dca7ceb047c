"""A run: what must fit before it starts, and its folder, with recipe.json, metrics.csv, best/, last/ and resume.ckpt."""

import csv
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from segue.backbones import classifier_weights
from segue.data.memory import estimate
from segue.images import white
from segue.labels import Labels
from segue.provenance import command_line, commit, describe_machine
from segue.recipes import Recipe


def check_fit(recipe: Recipe, network: nn.Module, train_data: Dataset[Any]) -> None:
    """ValueError if the images have other channels than the recipe, its crops are too small for the network, or this machine
    cannot do what it asks for."""
    sample = train_data[0]
    channels = np.shape(sample["image"])[-1] + ("depth" in fields_of(recipe, sample))
    if channels != len(recipe.mean):
        raise ValueError(
            f"the images have {channels} channels, but mean (={recipe.mean}) and std have {len(recipe.mean)} numbers; "
            f"give them one for each channel, such as those of some images here: {measured(train_data)}"
        )
    names = getattr(train_data, "labels", Labels.from_names(["background"])).names
    if recipe.objects and names[0] != "background":
        raise ValueError(f"objects (=True) needs data whose class 0 is the background, and here it is {names[0]}")
    if recipe.border_weights and recipe.loss in ("ohem", "absolute"):
        raise ValueError(f'border_weights (=True) are for cross entropy; with loss (="{recipe.loss}") take --no-border-weights')
    if recipe.border_weights and "instances" not in sample:
        raise ValueError("border_weights (=True) needs data with instances, such as cells or nuclei; take --no-border-weights")
    smallest = getattr(network, "min_size", 1)
    if min(recipe.crop) < smallest:
        raise ValueError(f"crop (={recipe.crop}) must be at least {smallest} x {smallest} for {recipe.network}; use larger crops")
    if recipe.cache == "memory":
        estimate(train_data).check()
    if recipe.compile:
        check_compiler(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def check_compiler(device: torch.device) -> None:
    """ValueError if torch.compile cannot compile anything here."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except RuntimeError as error:
        raise ValueError(
            f"compile (=True): torch.compile does not work here ({str(error).strip().splitlines()[0]:.200}); install a C++ "
            "compiler, such as g++, or take --no-compile"
        ) from None


def fields_of(recipe: Recipe, sample: dict[str, Any]) -> tuple[str, ...]:
    """The arrays that are an input of the network beside the image: the depth, where the recipe normalises one channel more."""
    return ("depth",) if "depth" in sample and len(recipe.mean) == np.shape(sample["image"])[-1] + 1 else ()


def measured(samples: Dataset[Any], count: int = 16) -> str:
    """The mean and the standard deviation of each channel over some of the images, as arguments of segue train."""
    length = len(samples)  # type: ignore[arg-type]
    chosen = np.linspace(0, length - 1, min(count, length)).round().astype(int)
    moments = []
    for index in chosen:
        image = np.asarray(samples[int(index)]["image"])
        mean, std = (moment((0, 1), dtype=np.float64) / white(image) for moment in (image.mean, image.std))
        moments.append((mean, std**2 + mean**2))
    mean, square = np.mean(moments, axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std[std == 0] = 1  # a channel that is the same everywhere
    return " ".join(["--mean", *(f"{x:.4g}" for x in mean), "--std", *(f"{x:.4g}" for x in std)])


def load_recipe(run: str | Path) -> Recipe:
    """The recipe of a run's folder; ValueError if that is no run."""
    path = Path(run) / "recipe.json"
    try:
        # what runs had before there was a choice
        return Recipe.from_json({"memory_format": "channels_first", **json.loads(path.read_text())})
    except FileNotFoundError:
        raise ValueError(f"{run} is no run: it has no recipe.json; name the folder that was given to --out") from None
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def finished_epochs(state: Path) -> int:
    """How many epochs the run with this resume.ckpt has finished; ValueError if the file is damaged."""
    try:
        return int(torch.load(state, mmap=True, weights_only=True)["epoch"]) + 1
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{state} is damaged ({error}); begin a new run, with --init {state.parent / 'last'}") from None


def is_finished(run: Path) -> bool:
    """Whether the run has trained all the epochs of its recipe."""
    state = run / "resume.ckpt"
    return state.exists() and finished_epochs(state) >= load_recipe(run).epochs


def prepare_folder(out: Path, recipe: Recipe) -> None:
    """Make the run's folder with its recipe.json; ValueError if it holds anything."""
    if int(os.environ.get("NODE_RANK", 0)):
        return
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(
                f"{out} holds something already, and nothing is overwritten; choose another folder"
                + (f", or go on with that run: segue train --resume {out}" if (out / "recipe.json").exists() else "")
            )
        out.mkdir(parents=True, exist_ok=True)
        classifier = recipe.classifier if recipe.classifier == "imagenet" else absolute(recipe.classifier)
        saved = replace(recipe, root=absolute(recipe.root), init=absolute(recipe.init), classifier=classifier)
        (out / "recipe.json").write_text(json.dumps(saved.to_json(), indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error.strerror}); choose a folder with room and the right to write"
        ) from None


def keep_format(out: Path, memory_format: str) -> None:
    """Write the memory format that was chosen for a run into its recipe."""
    path = out / "recipe.json"
    fields = json.loads(path.read_text())
    if fields.get("memory_format") != memory_format:
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**fields, "memory_format": memory_format}, indent=1) + "\n")
        part.replace(path)


def absolute(place: str) -> str:
    """The path from the root, if it leads somewhere from here."""
    return str(Path(place).resolve()) if place and Path(place).exists() else place


def append_row(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def drop_rows_from(path: Path, epoch: int) -> None:
    """Remove the rows of epochs that are about to be trained again."""
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines[1:] if int(line.split(",")[0]) < epoch]
        path.write_text("\n".join([lines[0], *kept]) + "\n")


def load_classifier(network: Any, classifier: str) -> None:
    """Give the network the weights of an ImageNet classifier: imagenet, or a file."""
    if not hasattr(network, "load_classifier"):
        raise ValueError(f"{type(network).__name__} has no load_classifier(weights); load them yourself, and take no classifier")
    source = getattr(network, "classifier", "") if classifier == "imagenet" else classifier
    if not source:
        raise ValueError(f'classifier (="{classifier}"): no library has weights for this {type(network).__name__}; name a file')
    network.load_classifier(classifier_weights(source))


def training_record(recipe: Recipe) -> dict[str, Any]:
    """What the checkpoint tells of its training, beside the recipe."""
    return {"command": command_line(), "commit": commit(), "seed": recipe.seed, **describe_machine()}
