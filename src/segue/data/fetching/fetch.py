"""From a data set's name to its files in a folder: download, checksum, unpacking, and what came noted beside the data."""

import hashlib
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from segue.data import DATASETS, DRAWN, create_dataset
from segue.data.fetching.archives import SOURCES, Archive
from segue.data.fetching.download import Part, Screen, download
from segue.data.fetching.unpack import ArchiveError, unpack
from segue.data.samples import DataError
from segue.suggest import did_you_mean

OWN = ("folder", "volumes")
NOTES = "fetched.json"


def fetch(name: str, root: Path, given: str = "", sha256: str = "", screen: Screen | None = None) -> None:
    """Bring the files of a data set into `root`, unless they are there. Nothing that is there is overwritten.

    `given` is an address or a file to take the archive from, in place of the addresses that segue knows; where a data set has
    several, that whose name it has. `sha256` is the checksum that this archive must have, in place of the one that segue knows.
    A download that was cut goes on where it stopped. A ValueError says what to do if a data set is not to be had so.
    """
    screen = screen or Screen()
    archives = find_archives(name)
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 (={sha256!r}) must be 64 hexadecimal digits")
    chosen = choose(name, archives, given) if given or sha256 else None
    for archive in archives:
        if archive is chosen:
            fetch_archive(name, archive, root, given, sha256, screen)
        else:
            fetch_archive(name, archive, root, "", "", screen)


def find_archives(name: str) -> tuple[Archive, ...]:
    """ValueError if there is no such data set, or if it is not to be downloaded just so; the message says what to do."""
    if name in DRAWN:
        raise ValueError(f"{name} is drawn by the program and needs no files; segue train --help lists what trains on it")
    if name in OWN:
        raise ValueError(f"{name} is for data of your own; segue data {name} says how to lay them out")
    if name not in SOURCES:
        raise ValueError(
            f'no data set "{name}" to fetch{did_you_mean(name, [other for other in SOURCES if SOURCES[other].archives])}'
        )
    if not SOURCES[name].archives:
        raise ValueError(f"segue does not download {name} (terms: {SOURCES[name].licence}); {find_help(name)}")
    return SOURCES[name].archives


def find_help(name: str) -> str:
    """Where to get the files and how to lay them out."""
    help: str = getattr(DATASETS[name], "help", "")
    return f"{help}; see {SOURCES[name].page}" if SOURCES[name].page not in help else help


def choose(name: str, archives: tuple[Archive, ...], given: str) -> Archive:
    """The archive that is to be taken from `given`."""
    if len(archives) == 1:
        return archives[0]
    file = Path(urlsplit(given).path).name
    for archive in archives:
        if archive.name == file:
            return archive
    raise ValueError(
        f"{name} is of several files, so --from must end with the name of one: {', '.join(a.name for a in archives)}"
    )


def fetch_archive(name: str, archive: Archive, root: Path, given: str, sha256: str, screen: Screen) -> None:
    part = Part(root / f"{archive.name}.part")
    finish(root, archive)
    there = [place for place in archive.makes if (root / place).exists()]
    if len(there) == len(archive.makes):
        screen.say(f"{root} has {', '.join(there)} already; to fetch anew, move that away")
        part.remove()
        return
    if there:
        missing = next(place for place in archive.makes if place not in there)
        raise DataError(
            f"{root} has {there[0]}, but no {missing}; nothing is overwritten: move it away, or choose another --root"
        )
    checksum = f"sha256:{sha256.lower()}" if sha256 else archive.checksum
    root.mkdir(parents=True, exist_ok=True)
    if given and urlsplit(given).scheme not in ("http", "https"):
        path, origin = Path(given), given
        if not path.is_file():
            raise DataError(
                f"there is no file {path}; --from takes an archive, or an address that starts with http:// or https://"
            )
    else:
        try:
            urls = (given,) if given else archive.urls
            download(urls, part, None if sha256 else archive.size, archive.most, bool(checksum), screen)
        except DataError as error:
            raise DataError(f"{name}: {error}\n{ways_out(name)}") from None
        path, origin = part.path, part.url
    try:
        found = verify(path, name, archive, root, checksum, screen)
        fields = {"from": origin, "bytes": path.stat().st_size, "sha256": found, "date": datetime.now(UTC).strftime("%Y-%m-%d")}
        if archive.keep or path != part.path:
            unfold(path, name, archive, root, screen)
        else:
            path.rename(root / archive.makes[0])
    except ArchiveError as error:
        if path == part.path:
            part.remove()  # so that the next try does not go on with it
        raise ArchiveError(f"{error}\n{ways_out(name)}") from None
    finish(root, archive)
    write_notes(root, {archive.name: fields})
    part.remove()


def ways_out(name: str) -> str:
    return (
        f"look at {SOURCES[name].page}; where you have the archive or know a mirror: segue data fetch {name} --from FILE_OR_URL"
    )


def verify(path: Path, name: str, archive: Archive, root: Path, checksum: str | None, screen: Screen) -> str:
    """The archive's SHA-256; ArchiveError if it is not the one that it should be, or not that of the last time."""
    kind, _, wanted = (checksum or "sha256:").partition(":")
    hashes = {"sha256": hashlib.sha256(), kind: hashlib.new(kind, usedforsecurity=False)}
    size = path.stat().st_size
    with path.open("rb") as file, screen.bar(f"checking {archive.name}", 0, size) as advance:
        while chunk := file.read(1 << 20):
            for hash in hashes.values():
                hash.update(chunk)
            advance(len(chunk))
    found, got = hashes["sha256"].hexdigest(), hashes[kind].hexdigest()
    if wanted and got != wanted:
        raise ArchiveError(
            f"{path}, of {size:,} bytes, is not the archive of {name}: its {kind} is {got}, not {wanted}; what was downloaded is "
            f"removed. If you trust what came, take it by its own checksum: segue data fetch {name} --sha256 {found}"
        )
    before = read_notes(root).get(archive.name, {})
    if not wanted and before.get("sha256", found) != found:
        raise ArchiveError(
            f"{path} has the SHA-256 {found}, but {archive.name} of {before.get('date')} had {before['sha256']}: one of them is "
            f"damaged, or its owner has changed it; the download is removed. To take the new one, remove {root / NOTES}"
        )
    screen.say(f"{archive.name}: sha256 {found}{'' if wanted else ', with no published one to compare it with'}")
    return found


def unfold(path: Path, name: str, archive: Archive, root: Path, screen: Screen) -> None:
    """Unpack into a folder of its own, which gets its lasting name when all is in it."""
    unpacking, unpacked = (root / f".{archive.name}.{state}" for state in ("unpacking", "unpacked"))
    for folder in (unpacking, unpacked):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        if archive.keep:
            with screen.bar(f"unpacking {archive.name}", 0, None) as advance:
                unpack(path, unpacking / archive.into, archive.keep, archive.most, advance)
        else:
            unpacking.mkdir()
            shutil.copyfile(path, unpacking / archive.makes[0])
        missing = [place for place in archive.makes if not (unpacking / place).exists()]
        if missing:
            raise ArchiveError(f"{path} is no archive of {name}: it has no {missing[0]}")
        unpacking.rename(unpacked)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def finish(root: Path, archive: Archive) -> None:
    """Move what is wholly unpacked to its places, also where an earlier command was stopped doing so."""
    unpacked = root / f".{archive.name}.unpacked"
    if not unpacked.is_dir():
        return
    for place in archive.makes:
        if (unpacked / place).exists() and not (root / place).exists():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / place).rename(root / place)
    shutil.rmtree(unpacked)


def read_notes(root: Path) -> dict[str, dict[str, object]]:
    """What fetched.json says of each archive; nothing if there is none that can be read."""
    try:
        notes = json.loads((root / NOTES).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in notes.items() if isinstance(value, dict)} if isinstance(notes, dict) else {}


def write_notes(root: Path, notes: dict[str, dict[str, object]]) -> None:
    (root / NOTES).write_text(json.dumps(read_notes(root) | notes, indent=2) + "\n", "utf-8")


def count_samples(name: str, root: Path) -> dict[str, int | DataError]:
    """The number of samples of each split, or what is wrong with its files."""
    counts: dict[str, int | DataError] = {}
    for split in getattr(DATASETS[name], "splits", ()):
        try:
            counts[split] = len(create_dataset(name, str(root), split))
        except DataError as error:
            counts[split] = error
    return counts


def is_complete(name: str, root: Path) -> bool:
    """Whether the folder has all that is to be fetched by this name."""
    return all((root / place).exists() for archive in SOURCES[name].archives for place in archive.makes)
