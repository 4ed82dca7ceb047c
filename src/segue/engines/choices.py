"""Measured choices, remembered in a file of the user's: the cache folder's segue/engines.json."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segue.machine.provenance import name_processor
from segue.machine.replacing import replacing

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")  # whose versions make a measurement out of date
MOST = 1000  # entries; the oldest are forgotten
FORMATS: dict[str, torch.memory_format] = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


def size_class(x: Tensor) -> int:
    """Images are of one class if their numbers of pixels differ by less than about 4 times."""
    return round((x.shape[0] * x.shape[-2] * x.shape[-1]).bit_length() / 2)


def describe_case(question: str, model: nn.Module, x: Tensor) -> str:
    """What a measurement depends on: the network's structure, the images' size, the machine and the packages."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    structure = sha256(f"{model!r} {shapes}".encode()).hexdigest()[:16]
    parts = [question, type(model).__name__, structure, f"size {size_class(x)}", f"{torch.get_num_threads()} threads"]
    return ", ".join([*parts, processor(x.device), *installed()])


@cache
def installed() -> list[str]:
    """The packages that are there, with their versions."""
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found


def processor(device: torch.device) -> str:
    cpu = f"{device.type} {name_processor()} ({os.cpu_count()})"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu


def cache_file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "segue" / "engines.json"


def recall(case: str) -> dict[str, Any]:
    """What was found out in this case; empty if nothing, or if the file is damaged."""
    found = read_all().get(case)
    return found if isinstance(found, dict) and isinstance(found.get("choice"), str) else {}


def remember(case: str, found: Mapping[str, Any]) -> None:
    """Write it to the file, if that can be written."""
    entries = read_all()
    entries.pop(case, None)
    entries = dict([*entries.items(), (case, dict(found))][-MOST:])
    path = cache_file()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.write_text(json.dumps(entries, indent=1) + "\n")


def read_all() -> dict[str, Any]:
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: a user without a home
        entries = json.loads(cache_file().read_text())
        return entries if isinstance(entries, dict) else {}
    return {}
