"""Unpacking that writes nowhere but into its folder."""

import gzip
import lzma
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from segue.data.samples import DataError

DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


class Member(NamedTuple):
    name: str
    size: int
    kind: str  # file, folder, link, or another that no archive of data has
    target: str  # of a link, from the archive's top
    open: Callable[[], IO[bytes] | None]


class ArchiveError(DataError):
    """The archive is damaged, or not the one that it should be, or would write where it should not."""


def unpack(archive: Path, folder: Path, keep: str, most: int, advance: Callable[[int], object] = lambda count: None) -> int:
    """Write the members whose path matches `keep` into the folder, each as the match's first group; gives their number.

    `advance` is told of the bytes of each file that is written.

    Every member is checked, kept or not. An ArchiveError is raised for a path or a link that leads outside, for devices, for more
    than `most` bytes in all, and for what cannot be read; a DataError if there is no room.
    """
    count = written = 0
    try:
        for member in members(archive):
            check(archive, member)
            match = re.fullmatch(keep, posixpath.normpath(member.name))
            if match is None or member.kind == "folder":
                continue
            if member.kind == "link":
                raise ArchiveError(f"{archive} has {member.name}, which is a link and no file of data; it is not unpacked")
            written += member.size
            if written > most:
                raise ArchiveError(f"{archive} unpacks to more than {most:,} bytes, which it should not have; it is not unpacked")
            path = folder / match[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.size > (free := shutil.disk_usage(path.parent).free):
                raise DataError(f"{folder} has room for {free:,} bytes, which is too little to unpack {archive}; make room")
            source = member.open()
            if source is None:
                raise ArchiveError(f"{archive} has {member.name}, which is no file; it is not unpacked")
            with source, path.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            if path.stat().st_size != member.size:
                raise ArchiveError(f"{archive} is damaged: {member.name} is shorter than it says")
            advance(member.size)
            count += 1
    except FileExistsError as error:
        raise ArchiveError(f"{archive} has {error.filename} twice; it is not unpacked") from None
    except DAMAGED as error:
        raise ArchiveError(f"{archive} is damaged: {error}") from None
    return count


def members(archive: Path) -> Iterator[Member]:
    """What a zip or a tar, packed or not, holds, in its order."""
    with archive.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        with zipfile.ZipFile(archive) as pack:
            for entry in pack.infolist():
                kind = kind_of_zip(entry)
                target = pack.read(entry).decode(errors="replace") if kind == "link" and entry.file_size < 4096 else ""
                place = str(PurePosixPath(entry.filename).parent / target)
                yield Member(entry.filename, entry.file_size, kind, place, partial(pack.open, entry))
        return
    try:
        stream = tarfile.open(archive, "r:*")  # noqa: SIM115
    except tarfile.TarError:
        raise ArchiveError(f"{archive} is neither a zip nor a tar; is it a page that says why there is no file?") from None
    with stream:
        while info := stream.next():
            kind = "file" if info.isreg() else "folder" if info.isdir() else "link" if info.issym() or info.islnk() else "device"
            place = str(PurePosixPath(info.name).parent / info.linkname) if info.issym() else info.linkname
            yield Member(info.name, info.size, kind, place, partial(stream.extractfile, info))
        while stream.fileobj and stream.fileobj.read(1 << 20):
            pass  # to the end, where gzip has its checksum


def kind_of_zip(entry: zipfile.ZipInfo) -> str:
    mode = entry.external_attr >> 16 if entry.create_system == 3 else 0  # the file's mode, where it was packed on Unix
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "device"
    return "folder" if entry.is_dir() else "file"


def check(archive: Path, member: Member) -> None:
    """ArchiveError if the member leads outside the folder into which it is unpacked, or is neither file, folder nor link."""
    if leads_outside(member.name) or (member.kind == "link" and leads_outside(member.target)):
        arrow = f" -> {member.target}" if member.kind == "link" else ""
        raise ArchiveError(f"{archive} has {member.name!r}{arrow}, which leads outside the folder; nothing is unpacked")
    if member.kind == "device":
        raise ArchiveError(f"{archive} has {member.name!r}, which is neither file nor folder; nothing is unpacked")


def leads_outside(path: str) -> bool:
    """Whether a path is absolute or climbs above where it starts, as Unix or as Windows reads it."""
    depth = 0
    for part in re.split(r"[/\\]", path):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return path.startswith(("/", "\\")) or bool(PureWindowsPath(path).drive) or "\0" in path
