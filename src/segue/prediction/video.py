"""From a video or a camera to a video of its labels."""

import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path

import cv2
import numpy as np

from segue.images import to_grey
from segue.images.pictures import overlay
from segue.inference import Predictor
from segue.inference.crf import DenseCRF
from segue.labels import Image, Labels, Mask
from segue.machine.replacing import replacing
from segue.machine.threads import ordered
from segue.prediction.one_image import label_photo

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mjpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv",
)  # fmt: skip
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
"""What a video is written with, by its suffix; OpenCV's wheels have these everywhere."""
RATE = 25.0  # frames a second, where a camera does not tell
AHEAD, BEHIND = 4, 4  # frames


class VideoError(ValueError):
    """The video or the camera cannot be read; the message names it."""


@dataclass(frozen=True)
class Footage:
    """What became of a video."""

    frames: int
    """How many were labelled."""
    promised: int
    """How many the source says that it has; 0 if it does not say."""
    seconds: float
    """How long it took."""
    stopped: bool
    """Whether Ctrl-C was pressed."""

    @property
    def is_cut_short(self) -> bool:
        """Whether a fiftieth of the frames, and more than two, could not be read; some files only estimate how many they have."""
        return self.frames < min(self.promised - 2, 0.98 * self.promised)

    @property
    def rate(self) -> float:
        """Frames labelled a second."""
        return self.frames / self.seconds if self.seconds else 0.0


def is_video(name: str) -> bool:
    """Whether this names a camera, a stream or a video file, by its look; a folder is none."""
    return is_camera(name) or "://" in name or (Path(name).suffix.lower() in VIDEO_SUFFIXES and not Path(name).is_dir())


def is_camera(name: str) -> bool:
    return re.fullmatch(r"camera:\d+", name) is not None


def is_live(name: str) -> bool:
    """Whether this names a camera or a stream, which cannot be read again."""
    return is_camera(name) or name.startswith(("rtsp://", "rtmp://", "udp://"))


def video_stem(source: str) -> str:
    """What results of this source are called: drive of drive.mp4, camera0 of camera:0."""
    return source.replace(":", "") if is_camera(source) else Path(source.split("?")[0]).stem


def public_name(source: str) -> str:
    """The source without the password of an address."""
    return re.sub(r"//[^/@]*@", "//", source)


def label_video(
    predictor: Predictor,
    source: str | Path,
    target: str | Path,
    crf: DenseCRF | None = None,
    frames: int = 0,
    progress: Callable[[int, int], None] = lambda done, promised: None,
) -> Footage:
    """Write a video of the overlays of another one, or of a camera ("camera:0") or an address ("rtsp://...").

    target: its suffix says how it is written: .mp4 as MPEG-4 part 2; .webm as VP8, which browsers play, at many times the work;
    .avi as Motion JPEG. It has the size of the first frame, less a row or column where that is odd, and the source's average
    frame rate, without sound. Frames are turned upright where the source says so; later ones of another size are fitted in.
    A camera or a stream is labelled as fast as the network goes: frames in between are passed over, and shown ones stay until the
    next, so that the result plays as long as it was filmed.
    frames: stop after so many; 0 goes on to the end.
    progress: called with how many frames were labelled, and how many there are, or 0 where that is not known.

    Ctrl-C ends the video, which then plays so far. VideoError if the source cannot be read or has no frames: then there is no
    file, as after any other error.
    """
    source, target = str(source), Path(target)
    if target.suffix.lower() not in CODECS:
        raise ValueError(f"{target} (video) must end in {', '.join(CODECS)}, which are what videos are written as")
    if predictor.channels not in (1, 3) or predictor.uses_depth:
        raise ValueError(f"the network takes {predictor.channels} channels, and videos have 3; label images of that many")
    capture = open_video(source)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    live = is_live(source) or ("://" in source and count <= 0)
    promised = 0 if live else max(0, round(count))
    start = time.monotonic()
    with closing(newest(capture) if live else upcoming(capture)) as shots:
        first = first_shot(shots, source)
        with replacing(target, target.suffix) as new:  # FFmpeg takes the format from the suffix
            labelled = map(partial(label_shot, predictor, crf), islice(chain([first], shots), frames or None))
            with closing(Writer(new, predictor.labels, first, capture.get(cv2.CAP_PROP_FPS), live)) as writer:
                stopped = write_all(writer, labelled, lambda done: progress(done, promised))
            if not writer.frames:
                new.unlink()
    return Footage(writer.frames, promised, time.monotonic() - start, stopped)


def write_all(writer: "Writer", labelled: Iterator[tuple["Shot", Mask]], progress: Callable[[int], None]) -> bool:
    """Write frames while others are labelled; whether Ctrl-C ended that."""
    try:
        with closing(ordered(writer.write, labelled, threads=1, waiting=BEHIND)) as written:
            for done in written:
                progress(done)
    except KeyboardInterrupt:
        return True
    return False


def label_shot(predictor: Predictor, crf: DenseCRF | None, shot: "Shot") -> tuple["Shot", Mask]:
    seen = to_grey(shot.image) if predictor.channels == 1 else shot.image
    return shot, label_photo(predictor, shot.image, seen, crf)[0]


@dataclass(frozen=True)
class Shot:
    """A frame, and the moment at which it was taken, in seconds."""

    image: Image
    moment: float


def open_video(source: str) -> cv2.VideoCapture:
    if is_camera(source):
        capture = cv2.VideoCapture(int(source.partition(":")[2]))
        hint = "is not there, or another program has it, or you may not use it; cameras are numbered from 0"
    elif "://" in source:
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
        hint = "gives no video"
    elif Path(source).is_file():
        capture = cv2.VideoCapture(str(Path(source).resolve()), cv2.CAP_FFMPEG)
        hint = "cannot be read as a video: it is empty or damaged, or its codec is not known here; save it as MP4 with H.264"
    else:
        raise VideoError(f"{source} does not exist")
    if not capture.isOpened():
        raise VideoError(f"{public_name(source)} {hint}")
    return capture


def first_shot(shots: Iterator[Shot], source: str) -> Shot:
    """VideoError if there is none, or none that can be written."""
    first = next(shots, None)
    if first is None:
        raise VideoError(f"{public_name(source)} has no frame that can be read; it is empty or damaged")
    height, width = first.image.shape[:2]
    if min(height, width) < 2:
        raise VideoError(
            f"{public_name(source)} is {width} x {height} pixels (width x height), and videos are written with 2 x 2 at least"
        )
    return first


def read_frame(capture: cv2.VideoCapture) -> Shot | None:
    """The next frame as RGB, turned upright; None if there is none."""
    found, frame = capture.read()
    return Shot(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), time.monotonic()) if found else None


def upcoming(capture: cv2.VideoCapture) -> Generator[Shot, None, None]:
    """All frames, some of them read before they are asked for."""
    try:
        with closing(ordered(read_frame, repeat(capture), threads=1, waiting=AHEAD)) as shots:
            yield from iter(lambda: next(shots), None)
    finally:
        capture.release()


def newest(capture: cv2.VideoCapture) -> Generator[Shot, None, None]:
    """The frame that came last, each time that one is asked for; those in between are lost."""
    box: queue.Queue[Shot | None] = queue.Queue(maxsize=1)
    stopping = threading.Event()

    def watch() -> None:
        shot = read_frame(capture)
        while shot and not stopping.is_set():
            with suppress(queue.Empty):
                box.get_nowait()
            box.put(shot)
            shot = read_frame(capture)
        capture.release()
        box.put(None)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield from iter(box.get, None)
    finally:
        stopping.set()
        with suppress(queue.Empty):
            box.get_nowait()


class Writer:
    """Writes overlays as a video; of a live source, each so often that the video plays as long as it was filmed."""

    def __init__(self, path: Path, labels: Labels, first: Shot, rate: float, live: bool) -> None:
        height, width = first.image.shape[:2]
        rate = rate if 1 <= rate <= 500 else RATE
        self.labels, self.live, self.start = labels, live, first.moment
        self.rate = round(rate, 3 if rate < 65 else 2)  # MPEG-4 part 2 divides a second by 65535 at most
        self.size = width, height
        self.frames = 0  # of the source
        self.written = 0
        self.last = first.image
        path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self.out = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, self.rate, (width & ~1, height & ~1))
        if not self.out.isOpened():
            raise OSError(f"{path} cannot be written as a video of {width} x {height} pixels (width x height)")

    def write(self, labelled: tuple[Shot, Mask]) -> int:
        """Write the overlay of a frame; gives how many frames there are so far."""
        shot, mask = labelled
        tinted = overlay(shot.image, mask, self.labels)
        if tinted.shape[1::-1] != self.size:
            tinted = cv2.resize(tinted, self.size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        picture = cv2.cvtColor(tinted, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)
        place = round((shot.moment - self.start) * self.rate) if self.live else self.written
        for _ in range(self.written, place):
            self.out.write(self.last)
        if self.written <= place:
            self.out.write(picture)
            self.written, self.last = place + 1, picture
        self.frames += 1
        return self.frames

    def close(self) -> None:
        self.out.release()
