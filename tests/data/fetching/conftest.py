from collections.abc import Iterator

import pytest

from helpers.server import Server, serve


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.data.fetching.download.DELAYS", (0, 0, 0, 0, 0))
