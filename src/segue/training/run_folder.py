"""A run: what must fit before it starts, and its folder, with recipe.json, metrics.csv, best/, last/ and resume.ckpt."""

import csv
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from segue.machine.provenance import command_line, commit, describe_machine
from segue.machine.replacing import replacing
from segue.recipes import Recipe


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


def finished_epochs(run: Path) -> int:
    """How many epochs the run has finished; ValueError if its resume.ckpt, in which that stands, is damaged."""
    state = run / "resume.ckpt"
    if not state.exists():
        return 0
    try:
        return int(torch.load(state, mmap=True, weights_only=True)["epoch"]) + 1
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{state} is damaged ({error}); begin a new run, with --init {run / 'last'}") from None


def is_finished(run: Path) -> bool:
    """Whether the run has trained all the epochs of its recipe."""
    return finished_epochs(run) >= load_recipe(run).epochs


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
        with replacing(path) as new:
            new.write_text(json.dumps({**fields, "memory_format": memory_format}, indent=1) + "\n")


def move_data(run: Path, root: str) -> None:
    """Write into the recipe of a run, and of those before it, where its data are now; ValueError if there is nothing."""
    if not Path(root).exists():
        raise ValueError(f"there is no folder {root}, which --root says the data have moved to")
    recipe = load_recipe(run)
    with replacing(run / "recipe.json") as new:
        new.write_text(json.dumps({**json.loads((run / "recipe.json").read_text()), "root": absolute(root)}, indent=1) + "\n")
    before = run.with_name(f"{run.name}-{recipe.before}")
    if recipe.before and (before / "recipe.json").exists():
        move_data(before, root)


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


def training_record(recipe: Recipe) -> dict[str, Any]:
    """What the checkpoint tells of its training, beside the recipe."""
    return {"command": command_line(), "commit": commit(), "seed": recipe.seed, **describe_machine()}
