"""Tiny data in true layouts, and the recipe that trains on it in seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.training import write_camvid

torch.set_num_threads(1)  # the images are too small to share


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the machine does best is measured anew, and the user's cache left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("camvid"))
