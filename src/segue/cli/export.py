"""segue export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segue.machine.progress import progress


def export(args: Sequence[str]) -> None:
    """Write a checkpoint as one file that runs without segue: segue export runs/enet enet.onnx"""
    import tyro

    def command(
        checkpoint: tyro.conf.Positional[str], out: tyro.conf.Positional[Path], images: Path | None = None, data: str = "",
        root: str = "", split: str = "val", int8: bool = False, calibrate: Path | None = None,
        input: Literal["uint8", "uint16", "float32"] = "uint8",
    ) -> None:  # fmt: skip
        """Write an image-to-labels model for ONNX Runtime or OpenVINO, and compare what it says with what the checkpoint says.

        It takes an image (height, width, channels) of any size and gives the class number of each of its pixels. Where more than
        1 pixel in 10,000 differs, no file is written, unless as many change in the network itself with the last bit of its input.

        Args:
            checkpoint: A checkpoint's folder, a run's folder (its best is taken), or the name of one that comes with segue.
            out: The file: NAME.onnx for ONNX, NAME.xml (and NAME.bin) for OpenVINO.
            images: A folder of images to compare on; by default streets are drawn.
            data: A labelled data set to compare on, which gives the mean IU of both too; segue data lists them.
            root: The folder of the data set.
            split: train, val, test, or another that the data have.
            int8: Calculate with integers of 8 bits; refused if the mean IU on the data drops by more than half a point.
            calibrate: A folder with 10 images or more of the kind that the file will see, of which 100 are used for --int8.
            input: The type of the images that the file takes.
        """
        write_file(checkpoint, out, images, data, root, split, int8, calibrate, input)

    tyro.cli(command, args=args, prog="segue export")


def write_file(
    checkpoint: str, out: Path, images: Path | None, data: str, root: str, split: str, int8: bool, calibrate: Path | None,
    kind: str,
) -> None:  # fmt: skip
    if int8 and calibrate is None:
        raise ValueError("--int8 chooses its numbers by images: name a folder of your own with --calibrate FOLDER")
    if calibrate is not None and not int8:
        raise ValueError("--calibrate is for --int8, which is not asked for; add it or leave out the folder")
    if images and data:
        raise ValueError("--images and --data are both given; compare on one of them")
    from segue.data import create_dataset
    from segue.export import check_request, export

    check_request(out, kind, calibrate, bool(data))
    samples = create_dataset(data, root, split) if data else None

    def say(line: str) -> None:
        print(line, flush=True)

    parity = export(
        checkpoint, out, images=images, samples=samples, kind=kind, calibrate=calibrate, say=say, progress=progress("comparing")
    )
    print("\n".join(parity.lines()))
    files = [out, out.with_suffix(".bin")] if out.suffix == ".xml" else [out]
    print(f"written: {', '.join(f'{file} ({file.stat().st_size / 1e6:.1f} MB)' for file in files)}")
