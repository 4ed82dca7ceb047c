"""segue doctor --convert: faults stay to be seen, names are not guessed, and what it writes is whole or not there."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml

from segue.cli.doctor import doctor
from segue.data import create_dataset
from segue.data.camvid import CAMVID
from segue.data.samples import DataError
from segue.doctor import examine
from segue.doctor.conversion import convert
from segue.labels import Labels

NAMES = ["sky", "road", "car", "tree"]
COLOURS = ((10, 20, 30), (200, 10, 10), (10, 200, 10), (90, 90, 250))


def write_set(root: Path, table: object = range(4), kind: type = np.uint8, suffix: str = ".png", **entries: object) -> Path:
    """Six images whose masks have four classes in stripes, written as `table` says; a segue.yaml if there are entries."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for what in ("images", "masks"):
            (root / split / what).mkdir(parents=True)
        for number in range(count):
            PIL.Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(root / split / f"images/{number}.png")
            mask = np.arange(64)[None] // 16 + 0 * np.arange(64)[:, None]
            PIL.Image.fromarray(np.array(table, kind)[mask]).save(root / split / f"masks/{number}{suffix}", quality=95)
    if entries:
        (root / "segue.yaml").write_text(yaml.safe_dump(entries))
    return root


def converted(root: Path, out: Path) -> list[str]:
    """Convert, and what the doctor then says."""
    found = examine("folder", str(root))
    assert found.meaning
    convert(root, out, found.meaning)
    return [fault.name for fault in examine("folder", str(out)).faults]


def entries_of(root: Path) -> dict[str, object]:
    return dict(yaml.safe_load((root / "segue.yaml").read_text()))


@pytest.mark.parametrize(("table", "entries", "left"), [
    ([0, 1, 2, 3], {}, []),
    ([1, 2, 3, 4], {}, ["off-by-one"]),
    ([0, 1, 2, 9], {}, ["unknown-label"]),
    ([5, 6, 7, 250], {"mapping": {5: "sky", 6: 1, 7: 2, 8: 3}, "ignore": [250]}, ["class-missing"]),
])  # fmt: skip
@pytest.mark.parametrize("grey", [False, True])
def test_numbers_are_written_as_they_are(
    table: list[int], entries: dict[str, object], left: list[str], grey: bool, tmp_path: Path
) -> None:
    stored = [[number] * 3 for number in table] if grey else table
    root = write_set(tmp_path / "set", stored, np.uint8 if grey else np.uint16, names=NAMES, **entries)
    assert converted(root, tmp_path / "out") == left
    assert np.array(PIL.Image.open(tmp_path / "out/train/masks/0.png"))[0, ::16].tolist() == table
    assert entries_of(tmp_path / "out") == entries_of(root)


def test_instance_numbers_are_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", [0, 1, 2, 3], np.uint16, names=NAMES)
    numbers = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    PIL.Image.fromarray(numbers).save(root / "val/masks/1.png")
    with pytest.raises(ValueError, match=r"val.masks.1\.png has numbers of 0 to 4095.*instance numbers"):
        converted(root, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_colours_that_the_palette_lacks_are_refused(tmp_path: Path) -> None:
    palette = [[*color] for color in COLOURS]
    root = write_set(tmp_path / "set", [*COLOURS[:3], (77, 7, 7)], names=NAMES, palette=palette)
    with pytest.raises(DataError, match=r"25\.0% of the pixels have colours"):
        converted(root, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_colours_that_are_not_known_get_no_names_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set", COLOURS, names=NAMES, channels=3)
    with pytest.raises(SystemExit):
        doctor([str(root), "--out", str(tmp_path / "x.jpg"), "--convert", str(tmp_path / "out")])
    said = capsys.readouterr().out
    entries = entries_of(tmp_path / "out")
    assert entries["names"] == ["class_0", "class_1", "class_2", "class_3"] and entries["channels"] == 3
    assert "guess" in said and " 10  20  30  class_" in said and "\npalette: [[" in said

    (root / "segue.yaml").write_text(yaml.safe_dump({"names": NAMES, "palette": [[*color] for color in COLOURS]}))
    assert converted(root, tmp_path / "again") == []
    assert create_dataset("folder", str(tmp_path / "again"))[0]["mask"][0, ::16].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shift", [0, 1])
def test_colours_of_a_known_table_have_its_names(shift: int, tmp_path: Path) -> None:
    """Also where JPEG has moved them by a little, and the user's own names are others."""
    table = np.array(CAMVID.palette[1:5]) - [0, shift, shift]
    root = write_set(tmp_path / "set", table.clip(0), names=[f"mine_{number}" for number in range(len(CAMVID))])
    assert converted(root, tmp_path / "out") == ["class-missing"]
    assert entries_of(tmp_path / "out")["names"] == [*CAMVID.names]
    assert create_dataset("folder", str(tmp_path / "out"))[0]["mask"][0, ::16].tolist() == [1, 2, 3, 4]


def test_splits_stay_without_those_that_are_left_out(tmp_path: Path) -> None:
    whole = write_set(tmp_path / "whole", [0, 1, 2, 3], np.uint16)
    root = whole / "train"
    (root / "segue.yaml").write_text(yaml.safe_dump({"names": NAMES, "splits": {"val": ["1", "2"]}}))
    (root / "masks/2.png").write_bytes(b"")
    assert converted(root, tmp_path / "out") == []
    assert entries_of(tmp_path / "out") == {"names": NAMES, "splits": {"val": ["1"]}}


def test_after_an_interruption_it_can_be_repeated(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", Labels.from_names(NAMES).palette, names=NAMES)
    part = tmp_path / "out.new"
    (part / "train/masks").mkdir(parents=True)
    (part / "train/masks/old.png").write_bytes(b"")
    assert converted(root, tmp_path / "out") == []
    assert not part.exists() and not (tmp_path / "out/train/masks/old.png").exists()

    part.mkdir()
    (part / "letter.txt").write_text("not segue's")
    (tmp_path / "out").rename(tmp_path / "first")
    with pytest.raises(DataError, match=r"out\.new is there already"):
        converted(root, tmp_path / "out")
    assert (part / "letter.txt").exists()


def test_a_picture_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set", [0, 1, 2, 3], names=NAMES)
    (tmp_path / "file").write_text("")
    doctor([str(root), "--out", str(tmp_path / "file/x.jpg"), "--convert", str(tmp_path / "out")])
    assert "the picture cannot be written" in capsys.readouterr().out
    assert (tmp_path / "out/segue.yaml").exists()


@pytest.mark.parametrize(("name", "hint"), [("mask_{}", False), ("{:04}", False), ("{}_mask", True)])
def test_the_hint_on_names_that_differ(name: str, hint: bool, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", names=NAMES)
    for path in root.glob("*/masks/*"):
        path.rename(path.with_stem(name.format(int(path.stem))))
    if name.startswith("mask"):
        for path in root.glob("*/images/*"):
            path.rename(path.with_stem(f"img_{path.stem}"))
    fault = examine("folder", str(root)).faults[0]
    assert fault.name == "no-partner"
    assert ('differ by "_mask" alone' in fault.found) == hint == ("differ" in fault.found)


def test_what_lies_there_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", names=NAMES)
    (root / "segue.yaml").rename(root / "segue.yml")
    fault = examine("folder", str(root)).faults[0]
    assert fault.name == "no-description" and "segue.yml" in fault.found and "Rename" in fault.mending
    for split in ("train", "val"):
        (root / split / "masks").rename(root / split / "labels")
    with pytest.raises(DataError, match="found: train/images, train/labels, val/images, val/labels"):
        examine("folder", str(root))


def test_palettes_of_their_own_are_not_numbers(tmp_path: Path) -> None:
    root = write_set(tmp_path / "own", names=NAMES)
    for path in root.glob("*/masks/*.png"):
        image = PIL.Image.fromarray(Labels(tuple(NAMES), COLOURS).colorize(np.array(PIL.Image.open(path))))
        image.rotate(90 * int(path.stem)).quantize(4 if int(path.stem) % 2 else 3).save(path)
    with pytest.raises(DataError, match="nothing was converted"):
        doctor([str(root), "--convert", str(tmp_path / "new"), "--out", str(tmp_path / "picture.jpg")])
    assert not (tmp_path / "new").exists()
