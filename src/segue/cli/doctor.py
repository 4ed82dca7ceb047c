"""segue doctor."""

import sys
from collections.abc import Sequence
from pathlib import Path

from segue.cli.console import progress


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
    from segue.data.samples import DataError
    from segue.doctor.colours import check_new
    from segue.doctor.colours import convert as write_numbers
    from segue.doctor.diagnosis import of_palettes
    from segue.doctor.examination import examine
    from segue.doctor.faults import some
    from segue.doctor.picture import picture

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
    found = examine(data, root, split, progress)
    counts = ", ".join(f"{len(readings)} {part}" for part, readings in found.readings.items())
    print(f"{found.name}: {counts or 'no'} images")
    for fault in found.faults:
        print(f"\n{fault.page()}")
    if not found.faults:
        print("no faults found")
    if convert:
        if not found.meaning:
            raise DataError(f"nothing of {root} could be read, so there is nothing to convert")
        palettes = of_palettes(reading for readings in found.readings.values() for reading in readings)
        if palettes:
            raise DataError(f"nothing was converted. {palettes[0].sentence()}")
        blurred = [fault.name for fault in found.faults if fault.name in ("jpeg-mask", "anti-aliased")]
        if blurred and not found.meaning.is_clear:
            raise DataError(
                f"{blurred[0]}: labels that lie so near each other cannot be told apart any more; export the masks anew"
            )
        print(f"\n{found.meaning.words}{'.' if found.meaning.as_stored else ':'}")
        if not found.meaning.as_stored:
            print(found.meaning.table(), end="")
        if found.meaning.is_guess:
            palette = [[*color] for color in found.meaning.numbers]
            print(f"To name them yourself, put into {Path(root, 'segue.yaml')} a colour for each name, in its order, and repeat:")
            print(f"palette: {palette}")
        count, left_out = write_numbers(Path(root), convert, found.meaning, progress("converting"))
        print(f"converted: {count} pairs, with masks of class numbers, in {convert}; look at its segue.yaml")
        print(f"what is left to mend: segue doctor {convert}")
        if left_out:
            print(f"left out: {some(left_out)}")
    if found.legend and any(found.readings.values()):
        target = out or Path("doctor", f"{found.name}.jpg")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            picture(found).save(target, quality=90)
            print(f"\npicture: {target}")
        except OSError as error:
            print(f"\nthe picture cannot be written ({error}): use --out")
    return not found.faults
