"""Downloads from a local server that cuts the connection, changes its file, knows no ranges, or refuses."""

from pathlib import Path

import numpy as np
import pytest

from helpers.server import File, Server
from segue.data.fetching.download import Part, Screen, download
from segue.data.samples import DataError

NOISE = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()


def get(urls: list[str], path: Path, mirrored: bool = False, most: int = 10**8, size: int | None = None) -> list[str]:
    """What is said while the file comes."""
    said: list[str] = []
    download(urls, Part(path), size, most, mirrored, Screen(say=said.append))
    return said


def test_goes_on_after_each_cut(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE, cuts=[1_000_000, 500_000, 700_000])
    said = get([server.url("a")], tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == NOISE
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000000-", "bytes=1500000-", "bytes=2200000-"]
    assert "ended after 1,000,000 of 3,000,000 bytes" in said[0]


def test_another_command_goes_on(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE, cuts=[1_000_000, *[0] * 6])
    with pytest.raises(DataError, match=r"1,000,000 bytes have come and are kept: the same command goes on"):
        get([server.url("a")], tmp_path / "a.part")
    server.files["a"].cuts.clear()
    server.asked.clear()
    get([server.url("a")], tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == NOISE
    assert server.asked == [("a", "bytes=1000000-")]
    get([server.url("a")], tmp_path / "a.part")  # it is whole
    assert len(server.asked) == 1


def test_ctrl_c_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE, cuts=[2_000_000])

    def stop(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.url("a")], Part(tmp_path / "a.part"), None, 10**8, False, Screen(say=stop))
    assert (tmp_path / "a.part").read_bytes() == NOISE[:2_000_000]
    get([server.url("a")], tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == NOISE
    assert server.asked[-1] == ("a", "bytes=2000000-")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.files["a"] = File(NOISE, cuts=[1_000_000, 900_000], ranges=False, chunked=chunked)
    assert any("starts anew" in line for line in get([server.url("a")], tmp_path / "a.part"))
    assert (tmp_path / "a.part").read_bytes() == NOISE


@pytest.mark.parametrize("other", [NOISE[::-1], NOISE[:500_000], NOISE + b"more"], ids=["alike", "shorter", "longer"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_file_that_changes_starts_anew(server: Server, tmp_path: Path, other: bytes, mirrored: bool) -> None:
    def change(file: File) -> None:
        file.content, file.tag = other, '"2"'

    server.files["a"] = File(NOISE, cuts=[1_000_000], then=change)
    get([server.url("a")], tmp_path / "a.part", mirrored)
    assert (tmp_path / "a.part").read_bytes() == other


def test_a_weak_tag_is_no_promise(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE, tag='W/"1"', cuts=[1_000_000])
    get([server.url("a")], tmp_path / "a.part")
    assert [wanted for _, wanted in server.asked] == [None, None]
    assert (tmp_path / "a.part").read_bytes() == NOISE


def test_a_mirror_ends_what_another_began_if_a_checksum_will_tell(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE, cuts=[1_000_000, *[0] * 6])
    server.files["b"] = File(NOISE, tag='"other"')
    get([server.url("a"), server.url("b")], tmp_path / "a.part", mirrored=True)
    assert (tmp_path / "a.part").read_bytes() == NOISE
    assert server.asked[-1] == ("b", "bytes=1000000-")


def test_no_checksum_no_mixing(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE, cuts=[1_000_000, *[0] * 6])
    server.files["b"] = File(NOISE, tag='"other"')
    get([server.url("a"), server.url("b")], tmp_path / "a.part")
    assert server.asked[-1] == ("b", None)


def test_each_address_that_fails_is_named(server: Server, tmp_path: Path) -> None:
    server.files["b"] = File(b"", status=503)
    with pytest.raises(
        DataError, match=r"(?s)/a: the server answers 404 Not Found.*/b: the server answers 503.*:1/c: no connection"
    ):
        get([server.url("a"), server.url("b"), "http://127.0.0.1:1/c"], tmp_path / "a.part")
    assert [path for path, _ in server.asked] == ["a", "b", "b"]


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_it_should_have(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.files["a"] = File(NOISE, chunked=chunked)
    with pytest.raises(DataError, match="more than"):
        get([server.url("a")], tmp_path / "a.part", most=1_000_000)
    assert not (tmp_path / "a.part").exists()


def test_another_size_than_published(server: Server, tmp_path: Path) -> None:
    server.files["a"] = File(NOISE)
    with pytest.raises(DataError, match="a file of 3,000,000 bytes, but it should have 4,000,000"):
        get([server.url("a")], tmp_path / "a.part", size=4_000_000)


def test_no_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["a"] = File(NOISE)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match="has room for 1,000 bytes, but 3,000,000 are to come"):
        get([server.url("a")], tmp_path / "a.part")
