"""Tiny data in true layouts, how tests share a process, and what each of them begins with."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the images are too small to share; before torch is loaded

import pytest
import torch

from helpers.training import write_camvid

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a job in the background, and so in what it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)

RUNTIMES = ("onnxruntime", "openvino", "nncf")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other runtimes come last, whatever the order: they bring threads, which processes forked for loading do not outlive."""
    items.sort(key=lambda item: item.get_closest_marker("runtimes") is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Torch's random numbers are those of the test, and of the fixtures that it is the first to need, in any order."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_runtime_without_the_mark(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    loaded = [name for name in RUNTIMES if sys.modules.get(name)]
    if loaded and not request.node.get_closest_marker("runtimes"):
        pytest.fail(f"{', '.join(loaded)} is loaded by this test or the collection: mark it with pytest.mark.runtimes")


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the machine does best is measured anew, and the user's cache left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("camvid"))
