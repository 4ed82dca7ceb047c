"""A server that cuts connections and changes its files, and archives in memory."""

import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """What the server has, and how badly it serves it."""

    content: bytes
    tag: str = '"1"'
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next connections is cut
    ranges: bool = True
    chunked: bool = False  # no length is told beforehand
    status: int = 200
    then: Callable[["File"], object] = lambda file: None  # what happens after a cut


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.asked: list[tuple[str, str | None]] = []  # path and Range

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path[1:], wanted))
        file = self.server.files.get(self.path[1:], File(b"", status=404))
        content, start = file.content, 0
        if file.status == 200 and wanted and file.ranges and self.headers.get("If-Range", file.tag) == file.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else file.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", file.tag)
        if file.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if file.cuts:
            self.write(body[: file.cuts.pop(0)], file.chunked)
            file.then(file)
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.write(body, file.chunked)
        if file.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def write(self, body: bytes, chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if chunked else body)


@contextmanager
def serve() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def pack_zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    return file.getvalue()


def pack_tar(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as pack:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(content, tarfile.TarInfo):
                info.size = len(content)
            pack.addfile(info, None if isinstance(content, tarfile.TarInfo) else io.BytesIO(content))
    return file.getvalue()
