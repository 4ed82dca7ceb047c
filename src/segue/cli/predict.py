"""segue predict."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segue.cli.console import progress


def predict(args: Sequence[str]) -> None:
    """Label photos: segue predict photo.jpg folder/ --out out"""
    import tyro

    def command(
        paths: tyro.conf.Positional[list[Path]], out: Path = Path("predictions"), crf: bool = False, samples: int = 0,
        cityscapes_submission: bool = False,
    ) -> None:  # fmt: skip
        """Write a map of class numbers (PNG) and an overlay (JPEG) for each image, at the image's own size.

        Args:
            paths: Images and folders of images; the first may be a checkpoint. Without one, segue's own ENet is used.
            out: The folder for the results.
            crf: Move the edges of the classes to edges of the image, with DeepLab's dense CRF (other networks take v2's values).
            samples: Predict so often with dropout on, label by the mean, and write a picture of the variance (Bayesian SegNet).
            cityscapes_submission: Write what the Cityscapes server takes, and nothing else: PNGs of label ids, named as it asks.
        """
        label_photos(paths, out, crf, samples, cityscapes_submission)

    tyro.cli(command, args=args, prog="segue predict")


def label_photos(paths: list[Path], out: Path, crf: bool, samples: int, submission: bool) -> None:
    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.crf import CRFS
    from segue.data.cityscapes import CITYSCAPES, CLASS_IDS
    from segue.images import photo_channels, write_image
    from segue.inference import Predictor
    from segue.report.sheet import heat_map, overlay

    named = bool(paths) and find_checkpoint(paths[0]) is not None
    for path in paths[named:]:
        if not path.exists():
            raise ValueError(f"{path} is neither an image, nor a folder, nor a checkpoint")
        if (path / "recipe.json").exists():
            raise ValueError(f"{path} is a run without a checkpoint; train it for an epoch first: segue train --resume {path}")
    checkpoint, inputs = (paths[0], paths[1:]) if named else (Path("enet-camvid"), paths)
    targets = plan_outputs(inputs, out, submission)
    model, card = load_checkpoint(checkpoint)
    predictor = Predictor.of(model, card)
    if submission and card.labels.names != CITYSCAPES.names:
        raise ValueError(
            f"{checkpoint} knows the classes {', '.join(card.labels.names)}, not the 19 of Cityscapes in their order, and would "
            "write wrong label ids; name a checkpoint that was trained on Cityscapes, or leave out --cityscapes-submission"
        )
    if samples:
        predictor.check_sampling(samples)
    if predictor.uses_depth:
        raise ValueError(
            f"{card.network} takes {predictor.channels - 1} channels here and depth in metres, which is no channel of an image; "
            f"give it both in Python: Predictor.load({str(checkpoint)!r})(image, depth)"
        )
    if predictor.channels not in (1, 3) and all(photo_channels(path) in (1, 3) for path in targets):
        raise ValueError(
            f"{card.network} takes {predictor.channels} channels here, and photos have 3; give it TIFFs with as many"
        )
    variant = f"{card.network}-{card.options.get('backbone')}"
    dense_crf = CRFS.get(variant, CRFS.get(card.network, CRFS["deeplabv2"])) if crf else None
    out.mkdir(parents=True, exist_ok=True)
    broken = 0
    sizes: dict[tuple[int, ...], Path] = {}
    for source, target in progress("labelling")(list(targets.items())):
        try:
            image, seen = read_photo(source, predictor.channels)
            mask, uncertainty = label_photo(predictor, image, seen, dense_crf, samples)
        except (ValueError, MemoryError) as error:
            broken += 1
            print(f"left out: {error}", file=sys.stderr)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, CLASS_IDS[mask] if submission else mask)
        if not submission:
            write_image(target.with_name(f"{target.stem}_overlay.jpg"), overlay(image, mask, predictor.labels))
        if not submission and uncertainty is not None:
            write_image(target.with_name(f"{target.stem}_uncertainty.jpg"), heat_map(uncertainty))
        sizes[mask.shape] = source
        print(f"{source} -> {target}: {summary(mask, predictor.labels.names)}")
    if broken:
        raise ValueError(f"{broken} of {len(targets)} images could not be labelled; they are named above")
    if submission:
        for (height, width), source in sizes.items():
            if (height, width) != (1024, 2048):
                print(f"{source} is {width} x {height} pixels; the server takes 2048 x 1024 alone", file=sys.stderr)
        print(
            f"for the server at cityscapes-dataset.com: zip -j submission.zip {out}/*_pred_labelIds.png\n"
            "it wants one file for each of the 1525 images of leftImg8bit/test, and no other"
        )


def read_photo(path: Path, channels: int) -> tuple[Any, Any]:
    """An image as an RGB picture of 8 bits, and as a network of so many channels sees it; ValueError if they do not fit."""
    from segue.images import photo_channels, read_channels, read_image, to_grey
    from segue.report.sheet import to_rgb

    if channels in (1, 3) and photo_channels(path):
        image = read_image(path)
        return image, to_grey(image) if channels == 1 else image
    seen = read_channels(path)
    if seen.shape[2] != channels:
        raise ValueError(f"{path} has {seen.shape[2]} channel(s) of {seen.dtype}, but the network takes {channels}")
    return to_rgb(seen), seen


def label_photo(predictor: Any, image: Any, seen: Any, dense_crf: Any, samples: int) -> tuple[Any, Any]:
    """The label map of what the network sees, and the variance of several samples where these are wanted, else None.

    image: it as an RGB picture, along whose edges the CRF moves the classes.
    """
    if dense_crf is None and not samples:
        return predictor(seen), None
    probabilities, uncertainty = predictor.sampled(seen, samples) if samples else (predictor.probabilities(seen), None)
    if dense_crf is not None:
        probabilities = dense_crf(image, probabilities)
    return probabilities.argmax(axis=0).astype("uint8"), uncertainty


def plan_outputs(inputs: list[Path], out: Path, submission: bool) -> dict[Path, Path]:
    """Each image, those in folders included, with the path of its label map; ValueError if two would share one."""
    from segue.data.cityscapes import submission_name

    targets: dict[Path, Path] = {}
    for path in inputs:
        check_pictures(path)
        for source in images_in(path, out) if path.is_dir() else [path]:
            inside = source.relative_to(path).parent if path.is_dir() else Path()
            targets[source] = out / (submission_name(source) if submission else inside / f"{source.stem}.png")
    if not targets:
        raise ValueError("there are no images to label; name photos, or folders that hold some")
    owners: dict[Path, Path] = {}
    sources = {source.resolve() for source in targets}
    for source, target in targets.items():
        for written in (target, target.with_name(f"{target.stem}_overlay.jpg")):
            if written.resolve() in sources:
                raise ValueError(f"{written} is one of the images, and would be overwritten; choose another --out")
        if target in owners:
            raise ValueError(f"{owners[target]} and {source} would both become {target}; label them one by one with --out")
        owners[target] = source
    return targets


def check_pictures(path: Path) -> None:
    """ValueError for a volume or a .mat, and for a folder that has such files and no images."""
    from segue.images import IMAGE_SUFFIXES

    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    others = [file for file in files if file.name.lower().endswith((".nii", ".nii.gz", ".mat"))]
    if others and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        raise ValueError(
            f"{others[0]} is no image but holds volumes or a whole data set, which segue predict does not read; do so in Python: "
            "samples = create_dataset(NAME, ROOT, SPLIT); Predictor.load(RUN)(samples[i]['image']), for a NAME of segue data"
        )


def images_in(folder: Path, out: Path) -> Iterator[Path]:
    """The images in a folder and the folders in it but `out`, by their suffix; how many other files there are is told."""
    from segue.images import IMAGE_SUFFIXES

    inside_out = folder.resolve() != out.resolve()
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not (inside_out and out.resolve() in path.resolve().parents)
    )
    others = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        print(f"{folder}: {len(others)} files are no images by their names, such as {others[0].name}", file=sys.stderr)
    yield from (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def summary(mask: Any, names: Sequence[str]) -> str:
    """The largest classes with their shares: 'road 41 %, building 30 %'."""
    import numpy as np

    shares = np.bincount(mask.reshape(-1), minlength=len(names)) / mask.size
    largest = [i for i in np.argsort(-shares)[:4] if shares[i] >= 0.005]
    return ", ".join(f"{names[i]} {100 * shares[i]:.0f} %" for i in largest)
