"""A checkpoint: a folder with everything that a prediction needs, model.safetensors and model.json. No pickle."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from segue._version import __version__
from segue.labels import Labels
from segue.models import MODELS, create_model
from segue.models.base import SegmentationModel

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What model.json says of the weights beside it."""

    network: str
    """Its name in the table of models, or the class of a module of one's own."""
    labels: Labels
    in_channels: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Subtracted from each channel, whose values are 0 to 1; then the channel is divided by `std`. Images of floats are
    taken as they are."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    short_side: int = 0
    """Images of other sizes are predicted with their shorter side resized to so many pixels; 0 leaves them as they are."""
    depth: bool = False
    """Whether the last channel is no part of the image, but its depth in metres."""
    recipe: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    """Command, commit, seed, hardware, hours and versions of the training."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores by name of data set and split."""


def save_checkpoint(folder: str | Path, model: nn.Module, card: Card) -> None:
    """Write the checkpoint; one that stood there is replaced when the new one is complete."""
    # A rename does not replace a folder that holds something, so there are two; what an interrupted one left is removed.
    folder = Path(folder)
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(weights)
    (new / "model.safetensors").write_bytes(data)
    write_card(new, card, hashlib.sha256(data).hexdigest())
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        new.rename(folder)


def write_card(folder: Path, card: Card, sha256: str) -> None:
    fields = {
        "format": FORMAT,
        "segue": __version__,
        **card.__dict__,
        "labels": card.labels.to_json(),
        "sha256": sha256,
    }
    (folder / "model.json").write_text(json.dumps(fields, indent=1) + "\n")


def find_checkpoint(path: str | Path) -> Path | None:
    """The checkpoint's folder: the path, a run's best or else its last, or one that comes with segue; None if there is none."""
    path = Path(path)
    for folder in (path, path / "best", path / "last", Path(__file__).parent / "pretrained" / path):
        if (folder / "model.json").exists() or (folder / "model.safetensors").exists():
            return folder
    return None


def load_checkpoint(path: str | Path, model: nn.Module | None = None) -> tuple[nn.Module, Card]:
    """The network with its weights, in evaluation mode on the CPU, and its card.

    `model` is needed for weights of a module of one's own, and given those weights. ValueError if the checkpoint is missing,
    damaged, or of another kind.
    """
    folder = find_checkpoint(path)
    if folder is None:
        raise ValueError(
            f"{path} is no checkpoint: that is a folder with model.json and model.safetensors, such as best/ in a run's folder"
        )
    return read_checkpoint(folder, model)


def read_checkpoint(folder: Path, model: nn.Module | None = None) -> tuple[nn.Module, Card]:
    """As `load_checkpoint`, of the folder that `find_checkpoint` found."""
    card, sha256 = read_card(folder)
    try:
        data = (folder / "model.safetensors").read_bytes()
        weights = safetensors.torch.load(data)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / 'model.safetensors'} is missing or damaged: {error}; copy the checkpoint anew") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{folder / 'model.safetensors'} is damaged, or not what model.json describes; copy the checkpoint anew")
    if model is None:
        if card.network not in MODELS:
            raise ValueError(
                f"{folder} holds the weights of {card.network}, which is not one of segue's networks; "
                "make that module and pass it: load_checkpoint(path, model=module)"
            )
        model = create_model(card.network, len(card.labels), card.in_channels, **card.options)
    load_weights(model, weights, str(folder))
    return model.eval(), card


def read_card(folder: Path) -> tuple[Card, str]:
    """The card, and the SHA-256 of the weights that it describes."""
    try:
        fields = json.loads((folder / "model.json").read_text())
        if fields["format"] != FORMAT:
            raise ValueError(
                f"{folder / 'model.json'} has the format {fields['format']}, this segue reads {FORMAT}; "
                f"use the segue that wrote it, {fields.get('segue', 'unknown')}"
            )
        names = [name for name in Card.__dataclass_fields__ if name not in ("labels", "mean", "std", "depth")]
        # what told it before cards had `depth`
        rgbd = fields["in_channels"] == 4 and fields["recipe"].get("data") in ("nyuv2", "sunrgbd")
        card = Card(
            labels=Labels.from_json(fields["labels"]),
            mean=tuple(fields["mean"]),
            std=tuple(fields["std"]),
            depth=fields.get("depth", rgbd),
            **{name: fields[name] for name in names},
        )
        return card, fields["sha256"]
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder / 'model.json'} is missing or damaged ({type(error).__name__}: {error}); copy the checkpoint anew"
        ) from None


def load_stage(model: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Give the model the weights of an earlier stage of its training; layers that only one of the two has stay as they are."""
    added, dropped = tuple(getattr(model, "added", ())), tuple(getattr(model, "dropped", ()))
    shared = {name: tensor for name, tensor in weights.items() if not name.startswith(dropped)}
    first = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(added)}
    load_weights(model, {**first, **shared}, source)


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Give the model the weights; ValueError if a name is missing, unknown or of another shape."""
    if isinstance(model, SegmentationModel):
        weights = model.upgrade(weights)
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"the weights of {source} do not fit {type(model).__name__}: "
            f"{len(missing)} names missing ({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
        )
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise ValueError(
                f"the weights of {source} do not fit this {type(model).__name__}: {name} is {tuple(weights[name].shape)} there, "
                f"and {tuple(tensor.shape)} here; the numbers of classes and channels must be equal"
            )
    model.load_state_dict(weights)
