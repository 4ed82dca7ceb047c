import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from helpers.commands import call as call_segue
from helpers.pictures import Bright
from segue import Labels, Predictor, create_model, save_checkpoint
from segue.checkpoint import Card
from segue.prediction.targets import plan_videos
from segue.prediction.video import Footage, VideoError, is_video, label_video, public_name, video_stem

Array = NDArray[Any]
LABELS = Labels(("dark", "light"), ((255, 0, 0), (0, 0, 255)))


def predictor(channels: int = 3) -> Predictor:
    return Predictor(Bright(), LABELS, (0.0,) * channels, (1.0,) * channels)


def frame(number: int, height: int = 48, width: int = 64) -> Array:
    """White from a column on that moves to the right with each frame; black left of it. The upper half is black throughout."""
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2 :, 4 * number :] = 255
    return image


def write_video(path: Path, frames: Sequence[Array], rate: float = 10) -> Path:
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*{".avi": "MJPG", ".mp4": "mp4v"}[path.suffix])
    out = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, (width, height))
    assert out.isOpened()
    for image in frames:
        out.write(image)
    out.release()
    return path


def read_video(path: Path) -> tuple[list[Array], float]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = [image[..., ::-1] for _, image in iter(capture.read, (False, None))]
    return frames, capture.get(cv2.CAP_PROP_FPS)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return write_video(tmp_path / "drive.mp4", [frame(i) for i in range(12)])


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm"])
def test_each_frame_is_tinted_with_its_own_labels_at_the_same_rate_and_size(suffix: str, drive: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    target = tmp_path / "out" / f"overlay{suffix}"
    footage = label_video(predictor(), drive, target, progress=lambda *now: calls.append(now))
    assert (footage.frames, footage.promised, footage.stopped, footage.is_cut_short) == (12, 12, False, False)
    assert calls == [(done, 12) for done in range(1, 13)]
    frames, rate = read_video(target)
    assert rate == 10
    assert len(frames) == 12
    for number, shown in enumerate(frames):
        assert shown.shape == (48, 64, 3)
        dark, light = shown[6:18, 8:56].mean(axis=(0, 1)), shown[30:42, 4 * number + 8 : 60].mean(axis=(0, 1))
        assert dark[0] > 90 > 60 > dark[2]  # red
        assert light[2] > light[0] + 60  # blue
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_number_of_frames_is_kept_to(drive: Path, tmp_path: Path) -> None:
    assert label_video(predictor(), drive, tmp_path / "a.mp4", frames=5).frames == 5
    assert len(read_video(tmp_path / "a.mp4")[0]) == 5


def test_an_odd_size_loses_a_row_and_a_column(tmp_path: Path) -> None:
    source = tmp_path / "odd.mjpeg"
    source.write_bytes(b"".join(cv2.imencode(".jpg", frame(i, 49, 65))[1].tobytes() for i in range(3)))
    assert read_video(source)[0][0].shape == (49, 65, 3)
    assert label_video(predictor(), source, tmp_path / "a.mp4").frames == 3
    assert {image.shape for image in read_video(tmp_path / "a.mp4")[0]} == {(48, 64, 3)}


def test_frames_of_other_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    source = tmp_path / "changing.mjpeg"
    sizes = [(48, 64), (48, 64), (96, 64), (24, 32)]
    source.write_bytes(b"".join(cv2.imencode(".jpg", frame(0, *size))[1].tobytes() for size in sizes))
    assert label_video(predictor(), source, tmp_path / "a.mp4").frames == 4
    frames, _ = read_video(tmp_path / "a.mp4")
    assert [image.shape for image in frames] == [(48, 64, 3)] * 4
    for shown in frames:
        assert shown[4:20, 8:56, 0].mean() > 90  # the upper half is dark, so red
        assert shown[28:44, 8:56, 2].mean() > 150


def test_a_video_that_was_filmed_sideways_is_turned_upright(drive: Path, tmp_path: Path) -> None:
    data = bytearray(drive.read_bytes())
    matrix = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    place = data.index(matrix, data.index(b"tkhd"))
    data[place : place + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)  # by 90 degrees
    (tmp_path / "turned.mp4").write_bytes(data)
    label_video(predictor(), tmp_path / "turned.mp4", tmp_path / "a.mp4")
    frames, _ = read_video(tmp_path / "a.mp4")
    assert frames[0].shape == (64, 48, 3)
    left, right = frames[0][8:56, 4:20].mean(axis=(0, 1)), frames[0][8:56, 28:44].mean(axis=(0, 1))
    assert left[2] > left[0] + 60  # the lower half, bright and so blue, comes to the left
    assert right[0] > right[2] + 60


def test_grey_networks_label_videos_and_others_are_refused(drive: Path, tmp_path: Path) -> None:
    assert label_video(predictor(1), drive, tmp_path / "a.mp4").frames == 12
    with pytest.raises(ValueError, match="takes 5 channels, and videos have 3"):
        label_video(predictor(5), drive, tmp_path / "b.mp4")
    with pytest.raises(ValueError, match=r"b\.gif \(video\) must end in \.mp4, \.avi, \.webm"):
        label_video(predictor(), drive, tmp_path / "b.gif")


def cut(drive: Path) -> None:
    drive.write_bytes(drive.read_bytes()[:-300])  # the list of frames is at the end


def empty(drive: Path) -> None:
    drive.write_bytes(b"")


def text(drive: Path) -> None:
    drive.write_text("no video " * 100)


def missing(drive: Path) -> None:
    drive.unlink()


@pytest.mark.parametrize("spoil", [cut, empty, text, missing])
def test_a_damaged_video_is_named_and_leaves_nothing(spoil: Callable[[Path], None], drive: Path, tmp_path: Path) -> None:
    spoil(drive)
    with pytest.raises(VideoError, match=r"drive\.mp4 (cannot be read as a video|does not exist)"):
        label_video(predictor(), drive, tmp_path / "out" / "a.mp4")
    assert not list(tmp_path.glob("out/*"))


def test_what_is_left_of_a_video_is_labelled(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    source = write_video(tmp_path / "a.avi", [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)])
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    footage = label_video(predictor(), source, tmp_path / "b.mp4")
    assert 10 < footage.frames < 30
    assert footage.is_cut_short
    assert len(read_video(tmp_path / "b.mp4")[0]) == footage.frames


def test_an_error_in_the_middle_leaves_nothing(drive: Path, tmp_path: Path) -> None:
    class Breaking(Bright):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 7:
                raise ValueError("broken")
            return super().forward(x)

    with pytest.raises(ValueError, match="broken"):
        label_video(Predictor(Breaking(), LABELS, (0.0,) * 3, (1.0,) * 3), drive, tmp_path / "out" / "a.mp4")
    assert not list(tmp_path.glob("out/*"))


def test_an_interrupted_video_plays_so_far(drive: Path, tmp_path: Path) -> None:
    def stop(done: int, promised: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    footage = label_video(predictor(), drive, tmp_path / "out" / "a.mp4", progress=stop)
    assert footage.stopped
    assert 4 <= footage.frames < 12
    assert len(read_video(tmp_path / "out" / "a.mp4")[0]) == footage.frames
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]


class FakeCamera:
    """Films twenty frames in a second, and is unplugged after `last` of them."""

    def __init__(self, last: int = 20) -> None:
        self.last, self.count, self.start = last, 0, time.monotonic()
        self.released = False

    def isOpened(self) -> bool:
        return True

    def get(self, property_: int) -> float:
        return {cv2.CAP_PROP_FPS: 20.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}.get(property_, 0.0)

    def read(self) -> tuple[bool, Array | None]:
        time.sleep(max(0.0, self.start + 0.05 * self.count - time.monotonic()))
        self.count += 1
        return (True, frame(0)) if self.count <= self.last else (False, None)

    def release(self) -> None:
        self.released = True


def test_a_camera_that_is_faster_than_the_network_loses_frames_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Bright):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.2)
            return super().forward(x)

    camera = FakeCamera()
    monkeypatch.setattr("segue.prediction.video.cv2.VideoCapture", lambda number: camera)
    footage = label_video(Predictor(Slow(), LABELS, (0.0,) * 3, (1.0,) * 3), "camera:0", tmp_path / "a.mp4")
    monkeypatch.undo()
    assert 2 <= footage.frames < 12
    assert footage.promised == 0
    frames, rate = read_video(tmp_path / "a.mp4")
    assert rate == 20
    assert footage.frames < len(frames) <= 20  # a second
    assert camera.released


def test_a_camera_is_stopped_by_a_number_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.prediction.video.cv2.VideoCapture", lambda number: FakeCamera(10**6))
    assert label_video(predictor(), "camera:0", tmp_path / "a.mp4", frames=3).frames == 3


def test_a_camera_that_is_not_there_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VideoError, match="camera:97 is not there, or another program has it"):
        label_video(predictor(), "camera:97", tmp_path / "a.mp4")


def test_what_is_a_video_is_seen_by_its_name() -> None:
    assert all(map(is_video, ("a/drive.MP4", "camera:0", "rtsp://host/live", "https://host/a.mp4?x=1")))
    assert not any(map(is_video, ("a.gif", "a.png", "camera", "camera:x", "enet-camvid", "folder")))
    assert video_stem("camera:2") == "camera2"
    assert video_stem("rtsp://user:secret@host/live?token=1") == "live"
    assert public_name("rtsp://user:secret@host/live") == "rtsp://host/live"


def test_a_folder_is_no_video_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").mkdir()
    assert not is_video(str(tmp_path / "x.mp4"))
    assert plan_videos(["a/y.mp4"], tmp_path / "x.mp4") == {"a/y.mp4": tmp_path / "x.mp4" / "y_overlay.mp4"}


def test_a_result_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not written as \.mkv; name --out a folder, or a file of \.mp4, \.avi, \.webm"):
        plan_videos(["a/x.mp4"], tmp_path / "y.mkv")
    (tmp_path / "y").touch()
    with pytest.raises(ValueError, match="y is a file; choose a folder"):
        plan_videos(["a/x.mp4"], tmp_path / "y")


def test_a_video_of_one_column_is_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "thin.mjpeg"
    source.write_bytes(cv2.imencode(".jpg", frame(0, 48, 1))[1].tobytes() * 2)
    with pytest.raises(VideoError, match=r"thin\.mjpeg is 1 x 48 pixels"):
        label_video(predictor(), source, tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["thin.mjpeg"]


def test_results_of_videos_overwrite_no_video_and_no_recording(tmp_path: Path) -> None:
    assert plan_videos(["a/x.mp4", "camera:0"], tmp_path) == {
        "a/x.mp4": tmp_path / "x_overlay.mp4",
        "camera:0": tmp_path / "camera0_overlay.mp4",
    }
    assert plan_videos(["a/x.mp4"], tmp_path / "y.webm") == {"a/x.mp4": tmp_path / "y.webm"}
    with pytest.raises(ValueError, match="label them one by one"):
        plan_videos(["a/x.mp4", "b/x.avi"], tmp_path)
    with pytest.raises(ValueError, match="would be overwritten"):
        plan_videos([str(tmp_path / "x.mp4")], tmp_path / "x.mp4")
    (tmp_path / "camera0_overlay.mp4").touch()
    with pytest.raises(ValueError, match="is there already"):
        plan_videos(["camera:0"], tmp_path)


class TestCommand:
    @pytest.fixture
    def call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
        save_checkpoint(tmp_path / "enet", create_model("enet", 2), Card("enet", LABELS))
        monkeypatch.chdir(tmp_path)

        return partial(call_segue, monkeypatch, "predict", "enet")

    def test_videos_and_photos_are_labelled_by_one_command(
        self, call: Callable[..., int], drive: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cv2.imwrite("photo.png", frame(3))
        assert call("photo.png", drive, "--out", "out", "--frames", 5) == 0
        assert {path.name for path in Path("out").iterdir()} == {"photo.png", "photo_overlay.jpg", "drive_overlay.mp4"}
        out = capsys.readouterr().out
        assert "drive_overlay.mp4: 5 frames in" in out
        assert "frames/s" in out

    def test_a_broken_video_is_left_out_and_the_next_labelled(
        self, call: Callable[..., int], drive: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("broken.mp4").write_bytes(b"")
        assert call("broken.mp4", drive, "--out", "out") == 2
        assert [path.name for path in Path("out").iterdir()] == ["drive_overlay.mp4"]
        err = capsys.readouterr().err
        assert "left out: broken.mp4 cannot be read as a video" in err
        assert "1 of 2 videos could not be labelled to their end" in err

    @pytest.mark.parametrize("error", [OSError("no space left"), MemoryError(), torch.OutOfMemoryError("out of memory")])
    def test_whatever_stops_a_video_the_next_is_labelled(
        self, error: Exception, call: Callable[..., int], drive: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        def label(predictor: Predictor, source: str, *args: object) -> Footage:
            if source == "next.mp4":
                return Footage(7, 7, 1.0, stopped=False)
            raise error

        monkeypatch.setattr("segue.prediction.video.label_video", label)
        Path("next.mp4").touch()
        assert call(drive, "next.mp4") == 2
        captured = capsys.readouterr()
        assert f"left out: {drive}: {str(error) or 'there is not enough memory'}" in captured.err
        assert "next.mp4 -> " in captured.out

    def test_a_video_that_ends_too_early_is_said(
        self, call: Callable[..., int], drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("segue.prediction.video.label_video", lambda *args: Footage(7, 40, 1.0, stopped=False))
        assert call(drive) == 2
        assert "drive.mp4 is damaged: it says that it has 40 frames" in capsys.readouterr().err
        assert call(drive, "--frames", 7) == 0

    def test_ctrl_c_ends_a_video_with_the_status_of_an_interrupt_and_what_is_live_with_that_of_success(
        self, call: Callable[..., int], drive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        footage = Footage(7, 0, 1.0, stopped=True)
        monkeypatch.setattr("segue.prediction.video.label_video", lambda *args: footage)
        assert call(drive) == 130
        assert call("camera:0") == 0
        assert call("rtsp://host/live") == 0
        assert capsys.readouterr().out.count("7 frames in 1.0 s, 7.0 frames/s") == 3

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (["--samples", 5], "--samples draws pictures of images"),
            (["--tiles"], "--tiles is for images"),
            (["--cityscapes-submission"], "the Cityscapes server takes no videos"),
            (["--frames", -1], "frames (=-1) must be at least 0"),
        ],
    )
    def test_options_that_are_not_for_videos_are_refused(
        self, call: Callable[..., int], drive: Path, args: list[object], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call(drive, *args) == 2
        assert message in capsys.readouterr().err
