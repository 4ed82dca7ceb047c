"""Where a result comes from: the command, the commit, the hardware and the versions."""

import platform
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from segue._version import __version__


def command_line() -> str:
    """The command that is running, to be given again: it begins with segue even where torchrun or `python -m` started it."""
    script = Path(sys.argv[0])
    name = "segue" if script.name == "__main__.py" and script.parent.name == "segue" else script.name
    return shlex.join([name, *sys.argv[1:]])


def commit() -> str:
    """The commit of segue's own source, with + if it was changed since; "" if it is not a git checkout."""
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def describe_machine(device: str = "") -> dict[str, Any]:
    """The hardware and the versions that a result was obtained with.

    device: what computed, "cpu" or "cuda"; without it, the GPUs if there are any.
    """
    versions = {"segue": __version__, "torch": torch.__version__, "python": platform.python_version()}
    if device != "cpu" and torch.cuda.is_available():
        return {"hardware": f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}", "versions": versions}
    threads = torch.get_num_threads()
    return {"hardware": f"{threads} core{'s' if threads > 1 else ''} of {name_processor()}", "versions": versions}


@cache
def name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
