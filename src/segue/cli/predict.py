"""segue predict."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

if TYPE_CHECKING:
    from segue.inference import Predictor
    from segue.inference.crf import DenseCRF


@dataclass(frozen=True)
class Options:
    out: Path = Path("predictions")
    """The folder for the results; for a single video also a file, of which .webm plays in browsers."""
    engine: Literal["torch", "fused", "onnxruntime", "openvino", "auto"] = "torch"
    """What computes the network; auto measures once what is the fastest here."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The processor, the graphics card, or the latter where there is one."""
    scales: tuple[float, ...] = (1.0,)
    """See each image at these multiples of its size, and label by the mean."""
    flip: bool = False
    """See each image mirrored as well, and label by the mean."""
    crf: bool = False
    """Move the edges of the classes to edges of the image, with DeepLab's dense CRF (other networks take v2's values)."""
    samples: int = 0
    """Predict so often with dropout on, label by the mean, and write a picture of the variance (Bayesian SegNet)."""
    tiles: bool = False
    """Label every image in tiles, as is done with those of more than 33 million pixels: in little memory, at its own
    resolution, also where the checkpoint was trained with another shorter side."""
    frames: int = 0
    """Stop a video or a camera after so many frames; 0 goes on to its end, or to Ctrl-C."""
    cityscapes_submission: bool = False
    """Write what the Cityscapes server takes, and nothing else: PNGs of label ids, named as it asks."""


def predict(args: Sequence[str]) -> None:
    """Label photos and videos: segue predict photo.jpg folder/ drive.mp4 --out out"""
    import tyro

    without_name = Options()

    def command(
        paths: tyro.conf.Positional[list[str]], options: Annotated[Options, tyro.conf.arg(name="")] = without_name
    ) -> None:
        """Write a map of class numbers (PNG) and an overlay (JPEG) for each image, at its own size, and an overlay of each video.

        Args:
            paths: Images, folders of images, videos, cameras as camera:0, and addresses of videos such as rtsp://...; the first
                may be a checkpoint. Without one, segue's own ENet is used.
        """
        label_all(paths, options)

    tyro.cli(command, args=args, prog="segue predict")


def label_all(names: list[str], options: Options) -> None:
    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.inference import Predictor
    from segue.inference.crf import CRFS
    from segue.prediction.targets import plan_images, plan_videos
    from segue.prediction.video import is_video

    named = bool(names) and find_checkpoint(names[0]) is not None
    checkpoint, names = (names[0], names[1:]) if named else ("enet-camvid", names)
    videos = [name for name in names if is_video(name)]
    images = [Path(name) for name in names if name not in videos]
    for path in [*images, *(Path(name) for name in videos if ":" not in name)]:
        if not path.exists():
            raise ValueError(f"{path} is neither an image, nor a folder, nor a checkpoint")
        if (path / "recipe.json").exists():
            raise ValueError(f"{path} is a run without a checkpoint; train it for an epoch first: segue train --resume {path}")
    check_options(options, bool(videos))
    films = plan_videos(videos, options.out, alone=not images)
    targets = plan_images(images, options.out, options.cityscapes_submission) if images or not films else {}
    model, card = load_checkpoint(checkpoint)
    device = "" if options.device == "auto" else options.device
    predictor = Predictor.of(model, card, device, options.engine, options.scales, options.flip)
    check_network(predictor, str(checkpoint), card.network, list(targets), options)
    variant = f"{card.network}-{card.options.get('backbone')}"
    crf = CRFS.get(variant, CRFS.get(card.network, CRFS["deeplabv2"])) if options.crf else None
    broken = label_images(predictor, targets, crf, options) if targets else 0
    lost = sum(not label_film(predictor, source, target, crf, options.frames) for source, target in films.items())
    if broken:
        raise ValueError(f"{broken} of {len(targets)} images could not be labelled; they are named above")
    if lost:
        raise ValueError(f"{lost} of {len(films)} videos could not be labelled to their end; they are named above")


def check_options(options: Options, videos: bool) -> None:
    """ValueError if options contradict each other."""
    import torch

    views = options.flip or tuple(options.scales) != (1.0,)
    clashes = (
        (options.samples and options.engine != "torch", "--samples keeps dropout on, and other engines than torch leave it out"),
        (options.samples and views, "--samples sees an image as it is; leave out --scales and --flip"),
        (
            options.tiles and (options.samples or options.crf or views),
            "--tiles goes with none of --scales --flip --crf --samples",
        ),
        (options.tiles and options.cityscapes_submission, "the server's images need no --tiles; leave it out"),
        (videos and options.samples, "--samples draws pictures of images, and not of videos"),
        (videos and options.tiles, "--tiles is for images, and not for videos"),
        (videos and options.cityscapes_submission, "the Cityscapes server takes no videos"),
        (options.frames and not videos, "--frames is for videos and cameras; there is none"),
        (options.frames < 0, f"frames (={options.frames}) must be at least 0"),
        (options.device == "cuda" and not torch.cuda.is_available(), "torch finds no graphics card; take --device cpu"),
    )
    for clash, message in clashes:
        if clash:
            raise ValueError(message)


def check_network(predictor: "Predictor", checkpoint: str, network: str, sources: list[Path], options: Options) -> None:
    """ValueError if the network cannot label such images, or not as the options say."""
    from segue.data.cityscapes import CITYSCAPES
    from segue.images import photo_channels

    if options.cityscapes_submission and predictor.labels.names != CITYSCAPES.names:
        raise ValueError(
            f"{checkpoint} knows the classes {', '.join(predictor.labels.names)}, not the 19 of Cityscapes in their order, and "
            "would write wrong label ids; name a checkpoint that was trained on Cityscapes, or leave out --cityscapes-submission"
        )
    if options.samples:
        predictor.check_sampling(options.samples)
    if predictor.uses_depth:
        raise ValueError(
            f"{network} takes {predictor.channels - 1} channels here and depth in metres, which is no channel of an image: "
            f"give it both in Python: Predictor.load({checkpoint!r})(image, depth)"
        )
    if sources and predictor.channels not in (1, 3) and all(photo_channels(path) in (1, 3) for path in sources):
        raise ValueError(f"{network} takes {predictor.channels} channels here, and photos have 3; give it TIFFs with as many")


def label_images(predictor: "Predictor", targets: dict[Path, Path], crf: "DenseCRF | None", options: Options) -> int:
    """Label images and print what became of each; gives how many were left out."""
    from segue.images.rows import shorter_side
    from segue.prediction.images import label_files

    options.out.mkdir(parents=True, exist_ok=True)
    submission, broken, done, start = options.cityscapes_submission, 0, 0, time.monotonic()
    sizes: dict[tuple[int, ...], Path] = {}
    with meter("images") as show:

        def show_tiles(source: Path, share: float) -> None:
            if not share:
                print(f"{source} is labelled in tiles; stopped, the same command goes on from there", file=sys.stderr)
                if predictor.short_side and shorter_side(source) not in (0, predictor.short_side):
                    print(
                        f"{source} is seen at its own resolution in tiles, while the checkpoint was trained with a shorter side "
                        f"of {predictor.short_side} pixels; if the labels are poor, scale it to that and label the result",
                        file=sys.stderr,
                    )
            show(done + share, len(targets))

        for image in label_files(predictor, targets, crf, options.samples, submission, options.tiles, show_tiles):
            done += 1
            if image.error:
                broken += 1
                print(f"left out: {image.error}", file=sys.stderr)
            else:
                sizes[image.shape] = image.source
                print(f"{image.source} -> {image.target}: {summary(image.shares, predictor.labels.names)}")
            show(done, len(targets))
    seconds = time.monotonic() - start
    if len(targets) > 1:
        print(f"{len(targets) - broken} images in {seconds:.1f} s: {(len(targets) - broken) / seconds:.1f} images/s")
    if submission and not broken:
        for (height, width), source in sizes.items():
            if (height, width) != (1024, 2048):
                print(f"{source} is {width} x {height} pixels; the server takes 2048 x 1024 alone", file=sys.stderr)
        print(
            f"for the server at cityscapes-dataset.com: zip -j submission.zip {options.out}/*_pred_labelIds.png\n"
            "it wants one file for each of the 1525 images of leftImg8bit/test, and no other"
        )
    return broken


def label_film(predictor: "Predictor", source: str, target: Path, crf: "DenseCRF | None", frames: int) -> bool:
    """Label a video and print what became of it; whether it was labelled to its end."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what goes wrong is said below, once
    import cv2
    import torch

    from segue.prediction.one_image import describe
    from segue.prediction.video import is_live, label_video, public_name

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    name = public_name(source)
    try:
        with meter("frames") as show:
            footage = label_video(predictor, source, target, crf, frames, show)
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError) as error:
        print(f"left out: {describe(name, error)}", file=sys.stderr)
        return False
    if not footage.frames:
        raise KeyboardInterrupt
    print(f"{name} -> {target}: {footage.frames} frames in {footage.seconds:.1f} s, {footage.rate:.1f} frames/s")
    if footage.stopped and not is_live(source):
        raise KeyboardInterrupt
    if not frames and footage.is_cut_short:
        print(f"{name} is damaged: it says that it has {footage.promised} frames; the result ends where it does", file=sys.stderr)
        return False
    return True


@contextmanager
def meter(unit: str) -> Iterator[Callable[[float, int], None]]:
    """A bar on the terminal, gone when it is done; to be called with how many are done, and of how many, or 0 if nobody knows."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("labelling"), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    start = time.monotonic()
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=None)

        def show(done: float, total: int) -> None:
            count = f"{int(done)} of {total}" if total else f"{int(done)}"
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, completed=done, total=total or None, description=f"{count} {unit}, {rate:.1f} {unit}/s")

        yield show


def summary(shares: Sequence[float], names: Sequence[str]) -> str:
    """The largest classes with their shares: 'road 41 %, building 30 %'."""
    largest = sorted(range(len(names)), key=lambda i: -shares[i])[:4]
    return ", ".join(f"{names[i]} {100 * shares[i]:.0f} %" for i in largest if shares[i] >= 0.005)
