"""What there is to label, and where the results go."""

import sys
from collections.abc import Sequence, Set
from pathlib import Path

from segue.data.cityscapes import submission_name
from segue.images import IMAGE_SUFFIXES
from segue.prediction.video import CODECS, VIDEO_SUFFIXES, is_live, video_stem


def plan_videos(sources: Sequence[str], out: Path, alone: bool = True) -> dict[str, Path]:
    """Each video with the path of its result, in the folder `out`; a single one, `alone`, may have that of a file.

    ValueError if two would share one, a source or a recording would be overwritten, or `out` is a file of no such kind.
    """
    if alone and len(sources) == 1 and out.suffix.lower() in VIDEO_SUFFIXES and not out.is_dir():
        if out.suffix.lower() not in CODECS:
            raise ValueError(f"videos are not written as {out.suffix}; name --out a folder, or a file of {', '.join(CODECS)}")
        films = {sources[0]: out}
    else:
        check_folder(out)
        films = {source: out / f"{video_stem(source)}_overlay.mp4" for source in sources}
    if len(set(films.values())) < len(films):
        raise ValueError(f"several videos would become {out}/STEM_overlay.mp4 of one name; label them one by one with --out")
    for source, target in films.items():
        check_target(target, {Path(name).resolve() for name in films}, "one of the videos")
        if target.exists() and is_live(source):
            raise ValueError(f"{target} is there already, and was filmed; choose another --out")
    return films


def plan_images(inputs: Sequence[Path], out: Path, submission: bool = False) -> dict[Path, Path]:
    """Each image, those in folders included, with the path of its label map; ValueError if two would share one.

    submission: label maps are named as the Cityscapes server asks.
    """
    check_folder(out)
    targets: dict[Path, Path] = {}
    for path in inputs:
        files = files_in(path, out) if path.is_dir() else [path]
        check_pictures(files)
        for source in only_images(path, files) if path.is_dir() else files:
            inside = source.relative_to(path).parent if path.is_dir() else Path()
            targets[source] = out / (submission_name(source) if submission else inside / f"{source.stem}.png")
    if not targets:
        raise ValueError("there are no images to label; name photos, or folders that hold some")
    owners: dict[Path, Path] = {}
    sources = {source.resolve() for source in targets}
    for source, target in targets.items():
        for written in (target, beside(target, "overlay")):
            check_target(written, sources)
        if target in owners:
            raise ValueError(f"{owners[target]} and {source} would both become {target}; label them one by one with --out")
        owners[target] = source
    return targets


def check_folder(out: Path) -> None:
    """ValueError if the results cannot go there, since it, or what should hold it, is a file."""
    for path in (out, *out.parents):
        if path.exists():
            if not path.is_dir():
                raise ValueError(f"{path} is a file; choose a folder as --out")
            return


def files_in(folder: Path, out: Path) -> list[Path]:
    """The files in a folder and the folders in it, in the order of their names; those in `out` only if that is the folder."""
    home, place = folder.resolve(), out.resolve()
    results = folder / place.relative_to(home) if home in place.parents else None
    return sorted(path for path in folder.rglob("*") if path.is_file() and results not in path.parents)


def check_pictures(files: Sequence[Path]) -> None:
    """ValueError if there are volumes or .mat files among these, and no images."""
    others = [file for file in files if file.name.lower().endswith((".nii", ".nii.gz", ".mat"))]
    if others and not any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        raise ValueError(
            f"{others[0]} is no image but holds volumes or a whole data set, which segue predict does not read; do so in Python: "
            "samples = create_dataset(NAME, ROOT, SPLIT); Predictor.load(RUN)(samples[i]['image']), for a NAME of segue data"
        )


def only_images(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Those of a folder's files that are images by their suffix; how many others there are is told."""
    others = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        print(f"{folder}: {len(others)} files are no images by their names, such as {others[0].name}", file=sys.stderr)
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def check_target(path: Path, sources: Set[Path], what: str = "one of the images", choice: str = "--out") -> None:
    """ValueError if a result cannot be put there, since it is `what`, one of the sources (resolved), or since it is a folder."""
    if path.resolve() in sources:
        raise ValueError(f"{path} is {what}, and would be overwritten; choose another {choice}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, where a file is to be written; choose another {choice}, or move it away")


def beside(target: Path, kind: str) -> Path:
    """The path of another picture of the image whose label map is `target`."""
    return target.with_name(f"{target.stem}_{kind}.jpg")
