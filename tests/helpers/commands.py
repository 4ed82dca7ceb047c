"""The command line, in this process or in one of its own."""

import os
import subprocess
import sys

import pytest

from segue.cli import main


def call(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    """The command line in this process; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["segue", *map(str, args)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def start_segue(*args: object, **env: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, with as many threads as this one: OMP_NUM_THREADS."""
    return subprocess.Popen(
        [sys.executable, "-m", "segue", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env},
    )  # fmt: skip


def run_segue(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    process = start_segue(*args, **env)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
