"""segue doctor."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segue.machine.progress import progress

if TYPE_CHECKING:
    from segue.doctor import Examination


def doctor(args: Sequence[str]) -> None:
    """Say what is wrong with a data set, and picture it: segue doctor FOLDER"""
    import tyro

    def command(
        folder: tyro.conf.Positional[Path | None] = None, data: str = "folder", root: str = "", split: str = "train",
        out: Path | None = None, convert: Path | None = None,
    ) -> None:  # fmt: skip
        """Read the training split and val once; name each fault, where it is and the way out. Exit status 1 if there is any.

        Args:
            folder: The folder of the data set, the same as --root.
            data: folder, which is data of one's own, or another name that segue data lists.
            root: The folder of the data set.
            split: The split to train on, such as voc's train_aug.
            out: The picture of class shares, sizes and samples; by default doctor/NAME.jpg.
            convert: A new folder for data of one's own with masks of class numbers, such as of masks that hold colours.
        """
        if folder and root:
            raise ValueError(f"the folder is named twice, as {folder} and as --root {root}; name it once")
        if not consult(data, str(folder or root), split, out, convert):
            sys.exit(1)

    tyro.cli(command, args=args, prog="segue doctor")


def consult(data: str, root: str, split: str, out: Path | None, convert: Path | None) -> bool:
    """Examine, print and draw; whether nothing is wrong."""
    from segue.doctor.examination import examine

    check_arguments(data, root, out, convert)
    found = examine(data, root, split, progress)
    counts = ", ".join(f"{len(readings)} {part}" for part, readings in found.readings.items())
    print(f"{found.name}: {counts or 'no'} images")
    for fault in found.faults:
        print(f"\n{fault.page()}")
    if not found.faults:
        print("no faults found")
    if convert:
        write_numbers(found, convert)
    if found.legend and any(found.readings.values()):
        draw(found, out or Path("doctor", f"{found.name}.jpg"))
    return not found.faults


def check_arguments(data: str, root: str, out: Path | None, convert: Path | None) -> None:
    """ValueError if these cannot be done, before any work."""
    from segue.data.samples import DataError
    from segue.doctor.conversion import check_new

    if data == "folder" and not root:
        raise DataError("name the folder of the data: segue doctor FOLDER")
    if data == "folder" and not Path(root).is_dir():
        raise DataError(f"there is no folder {root}")
    if convert and data != "folder":
        raise DataError(f"--convert is for data of one's own, and {data} is none")
    if out and out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ValueError(f"out (={out}) must be a file that ends in .jpg or .png, for the picture")
    if convert:
        check_new(convert)


def write_numbers(found: "Examination", folder: Path) -> None:
    """Convert, and print how."""
    from segue.doctor.conversion import convert, find_meaning
    from segue.doctor.faults import some

    meaning, root = find_meaning(found), Path(found.root)
    print(f"\n{meaning.words}{'.' if meaning.as_stored else ':'}")
    if not meaning.as_stored:
        print(meaning.table(), end="")
    if meaning.is_guess:
        print(f"To name them yourself, put into {root / 'segue.yaml'} a colour for each name, in its order, and repeat:")
        print(f"palette: {[[*color] for color in meaning.numbers]}")
    pairs, left_out, ignored = convert(root, folder, meaning, progress("converting"))
    if ignored:
        print(f"{ignored:.2%} of the pixels are of no known class, and ignored")
    print(f"converted: {pairs} pairs, with masks of class numbers, in {folder}; look at its segue.yaml")
    print(f"what is left to mend: segue doctor {folder}")
    if left_out:
        print(f"left out: {some(left_out)}")


def draw(found: "Examination", target: Path) -> None:
    """Write the picture, or print why not."""
    from segue.doctor.picture import picture

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(found).save(target, quality=90)
        print(f"\npicture: {target}")
    except OSError as error:
        print(f"\nthe picture cannot be written ({error}): use --out")
