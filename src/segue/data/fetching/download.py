"""Downloads that go on where they were cut, with nothing but the standard library."""

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from segue._version import __version__
from segue.data.samples import DataError

DELAYS: tuple[float, ...] = (1, 2, 4, 8, 16)  # seconds before each further try that brings nothing new
TIMEOUT = 30  # seconds of silence
CHUNK = 1 << 18

Bar = Callable[[str, int, int | None], AbstractContextManager[Callable[[int], object]]]
"""Of what is done, the bytes at the start and in all; gives a function that is told of each further number of bytes."""


@dataclass(frozen=True)
class Screen:
    """Where one sees how far it is. Nowhere, unless given."""

    say: Callable[[str], object] = lambda text: None
    bar: Bar = lambda what, start, total: nullcontext(lambda count: None)


class CutError(Exception):
    """The connection broke or the server is busy: it may go better the next time."""


class RefusedError(Exception):
    """The server does not have it, or does not give it."""


@dataclass
class Part:
    """A file that is on its way, and beside it, in JSON, what the server said of it."""

    path: Path
    url: str = ""
    validator: str = ""  # ETag, or date, by which the server knows whether its file is still the same
    size: int | None = None
    notes: Path = field(init=False)

    def __post_init__(self) -> None:
        self.notes = self.path.with_name(f"{self.path.name}.json")
        try:
            known = json.loads(self.notes.read_text("utf-8"))
            self.url, self.validator, self.size = known["url"], known["validator"], known["size"]
        except (OSError, ValueError, KeyError, TypeError):
            self.path.unlink(missing_ok=True)  # nobody knows what it is a part of

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def complete(self) -> bool:
        return self.size is not None and self.bytes == self.size and self.path.exists()

    def note(self, url: str, validator: str, size: int | None) -> None:
        self.url, self.validator, self.size = url, validator, size
        fields = {name: value for name, value in asdict(self).items() if name in ("url", "validator", "size")}
        self.notes.write_text(json.dumps(fields), "utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def download(urls: Sequence[str], part: Part, size: int | None, most: int, mirrored: bool, screen: Screen) -> None:
    """Complete the part from the first of the addresses that gives it; DataError if none does.

    `size` is what it must have, where that is known; `most` is the most bytes that are taken. If `mirrored`, a checksum will tell
    whether the whole is right, so that what one server began another may end.
    """
    failures = []
    for url in urls:
        try:
            download_from(url, part, size, most, mirrored, screen)
            return
        except (CutError, RefusedError) as error:
            failures.append(f"{url}: {error}")
    kept = f"\n{part.bytes:,} bytes have come and are kept: the same command goes on from there" if part.bytes else ""
    raise DataError("it cannot be downloaded\n" + "\n".join(failures) + kept)


def download_from(url: str, part: Part, size: int | None, most: int, mirrored: bool, screen: Screen) -> None:
    tries, best = 0, part.bytes
    while not part.complete:
        try:
            receive(url, part, size, most, mirrored, screen)
        except CutError as error:
            if part.bytes > best:
                tries, best = 0, part.bytes
            delays = DELAYS if part.bytes else DELAYS[:1]  # a server that has never answered is not waited for
            if tries == len(delays):
                raise
            screen.say(f"{error}; trying again in {delays[tries]:g} s")
            time.sleep(delays[tries])
            tries += 1


def receive(url: str, part: Part, size: int | None, most: int, mirrored: bool, screen: Screen) -> None:
    """Take what one connection gives; CutError if that is not all."""
    headers = {"User-Agent": f"segue/{__version__}", "Accept-Encoding": "identity"}
    begun, same = part.bytes, part.url == url
    if begun and (mirrored or (same and part.validator)):
        headers["Range"] = f"bytes={begun}-"
        if same and part.validator:
            headers["If-Range"] = part.validator
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:
            part.remove()
            raise CutError("the server has another file than before, so it starts anew") from None
        if error.code in (408, 429) or error.code >= 500:
            raise CutError(f"the server answers {error.code} {error.reason}") from None
        raise RefusedError(f"the server answers {error.code} {error.reason}") from None
    except (OSError, HTTPException) as error:
        raise CutError(f"no connection: {getattr(error, 'reason', error)}") from None
    with response:
        start, total = extent(response, begun)
        if start and (start != begun or (part.size is not None and total != part.size)):
            part.remove()
            raise CutError("the server has another file than before, so it starts anew")
        if size is not None and total is not None and total != size:
            raise RefusedError(f"the server has a file of {total:,} bytes, but it should have {size:,}")
        check_room(part.path.parent, total or 0, start, most)
        if begun and not start:
            screen.say("the server cannot go on where it stopped, or has another file than before, so it starts anew")
        part.note(url, validator(response), total)
        copy(response, part, start, total, most, screen)


def extent(response: HTTPResponse, begun: int) -> tuple[int, int | None]:
    """The byte at which the answer starts, and the bytes of the whole file."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None:
            raise RefusedError(f"the server gives a part, but does not say which: {response.headers.get('Content-Range')!r}")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def validator(response: HTTPResponse) -> str:
    """A strong ETag or else a date; a weak ETag does not promise the same bytes."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def check_room(folder: Path, total: int, start: int, most: int) -> None:
    free = shutil.disk_usage(folder).free
    if total > most:
        raise RefusedError(f"the server has a file of {total:,} bytes, which is more than it should have ({most:,})")
    if total - start > free:
        raise DataError(f"{folder} has room for {free:,} bytes, but {total - start:,} are to come; make room")


def copy(response: HTTPResponse, part: Part, start: int, total: int | None, most: int, screen: Screen) -> None:
    come = start
    with screen.bar(f"downloading {part.path.stem}", start, total) as advance, part.path.open("ab" if start else "wb") as file:
        while True:
            try:
                chunk = response.read1(CHUNK)
            except (OSError, HTTPException) as error:
                raise CutError(f"the connection broke after {come:,} bytes ({error or type(error).__name__})") from None
            come += len(chunk)
            if not chunk or come > most:
                break
            file.write(chunk)
            advance(len(chunk))
    if come > most:
        part.remove()
        raise RefusedError(f"the server sends more than {most:,} bytes, which it should not have")
    if total is None:
        part.note(part.url, part.validator, come)
    elif come < total:
        raise CutError(f"the connection ended after {come:,} of {total:,} bytes")
    elif come > total:
        part.remove()
        raise CutError(f"the server sent more than the {total:,} bytes that it announced, so it starts anew")
