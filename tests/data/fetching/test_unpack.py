"""Archives that would break out of their folder, fill the disk, or are damaged."""

import io
import itertools
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.server import pack_tar, pack_zip
from segue.data.fetching.unpack import ArchiveError, leads_outside, unpack

NOISE = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str, target: str) -> bytes:
    file = io.BytesIO()
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(file, "w") as pack:
        pack.writestr("data/good.txt", b"good")
        pack.writestr(info, target)
    return file.getvalue()


GOOD = {"data/good.txt": b"good", "data/sub/more.txt": b"more", "readme": b"not kept"}
OUTSIDE = (
    "../evil.txt",
    "data/../../evil.txt",
    "/evil.txt",
    "..\\evil.txt",
    "C:\\evil.txt",
    "C:evil.txt",
    "data/x/../../../evil.txt",
)


@pytest.mark.parametrize("content", [pack_zip(GOOD), pack_tar(GOOD), pack_tar(GOOD, "w")], ids=["zip", "tgz", "tar"])
def test_keeps_what_is_wanted(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert unpack(tmp_path / "a", tmp_path / "out", "data/(.*)", 100) == 2
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"good.txt", str(Path("sub/more.txt"))}
    assert (tmp_path / "out" / "good.txt").read_bytes() == b"good"


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_refuses_paths_that_lead_outside(pack: Callable[..., bytes], name: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_bytes(pack({name: b"evil", **GOOD}))
    with pytest.raises(ArchiveError, match="leads outside the folder; nothing is unpacked"):
        unpack(tmp_path / "inner" / "a", tmp_path / "inner" / "out", "(.*)", 100)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pack_tar({"l": special("data/l", tarfile.SYMTYPE, "../../evil")}), r"'data/l' -> .*leads outside"),
        (pack_tar({"l": special("data/l", tarfile.SYMTYPE, "/etc/passwd")}), r"-> /etc/passwd, which leads outside"),
        (pack_tar({"l": special("data/l", tarfile.LNKTYPE, "../evil")}), "leads outside"),
        (pack_tar({"l": special("readme", tarfile.LNKTYPE, "/etc/passwd")}), "leads outside"),
        (pack_tar({"l": special("data/l", tarfile.SYMTYPE, "good.txt")}), "is a link and no file of data"),
        (pack_tar({"l": special("data/l", tarfile.CHRTYPE)}), "neither file nor folder"),
        (pack_tar({"l": special("data/l", tarfile.FIFOTYPE)}), "neither file nor folder"),
        (zip_link("data/l", "../../evil"), "leads outside"),
        (zip_link("data/l", "/etc/passwd"), "leads outside"),
        (zip_link("data/l", "good.txt"), "is a link"),
    ],
    ids=itertools.count(),
)
def test_refuses_links_and_devices(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArchiveError, match=message):
        unpack(tmp_path / "a", tmp_path / "out", "data/(.*)", 100)


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_refuses_bombs_before_they_are_written(pack: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack({f"data/{i}": bytes(600_000) for i in range(3)}))
    with pytest.raises(ArchiveError, match="unpacks to more than 1,000,000 bytes"):
        unpack(tmp_path / "a", tmp_path / "out", "data/(.*)", 1_000_000)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_a_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack_tar({"data/x": b"1", "data/./x": b"2"}))
    with pytest.raises(ArchiveError, match="twice"):
        unpack(tmp_path / "a", tmp_path / "out", "data/(.*)", 100)


@pytest.mark.parametrize("pack", [pack_zip, pack_tar, lambda members: pack_tar(members, "w")], ids=["zip", "tgz", "tar"])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_damaged_archives(pack: Callable[..., bytes], harm: str, tmp_path: Path) -> None:
    content = bytearray(pack({"data/x": NOISE[:100_000]}))
    if harm == "cut":
        del content[50_000:]
    elif content[:2] in (b"PK", b"\x1f\x8b"):
        content[50_000] ^= 255
    else:
        content[10] ^= 255  # a bare tar has a checksum of its heads alone
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"damaged|neither a zip nor a tar"):
        unpack(tmp_path / "a", tmp_path / "out", "data/(.*)", 10**6)


def test_a_page_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("<html>log in</html>" * 100)
    with pytest.raises(ArchiveError, match=r"neither a zip nor a tar; is it a page"):
        unpack(tmp_path / "a", tmp_path / "out", "(.*)", 100)


def test_leads_outside() -> None:
    assert not any(map(leads_outside, ("a", "a/b", "./a", "a/../b", "a..b/..c", "a//b")))
    assert all(map(leads_outside, ("..", "a/../..", "/a", "\\a", "\\\\host\\a", "c:/a", "a\0b")))
