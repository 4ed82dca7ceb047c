from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
import yaml
from numpy.typing import NDArray

from helpers.commands import call
from helpers.extras import real_data
from helpers.pictures import save
from helpers.training import tiny_recipe, write_camvid
from segue import Labels, create_dataset, train
from segue.cli.doctor import doctor
from segue.data.camvid import CAMVID
from segue.data.cityscapes import CITYSCAPES, IMAGE, LABEL_IDS, MASK
from segue.data.samples import DataError
from segue.data.synthetic.base import COUNTS
from segue.data.voc import VOC
from segue.doctor import KINDS, Examination, examine, quick_check
from segue.doctor.conversion import convert
from segue.doctor.picture import picture
from segue.images import read_image
from segue.labels import IGNORE

NAMES = ["sky", "road", "car", "tree"]


def scene(random: np.random.Generator, size: tuple[int, int] = (48, 64), classes: int = len(NAMES)) -> NDArray[np.uint8]:
    """A mask of a few ellipses on a ground; each class is in it."""
    mask = np.zeros(size, np.uint8)
    for number in [*range(1, classes), *range(classes)]:
        middle = (int(random.integers(0, size[1])), int(random.integers(0, size[0])))
        cv2.ellipse(mask, middle, (int(random.integers(5, 15)), int(random.integers(5, 12))), 30.0, 0, 360, number, -1)
    mask[:6] = np.arange(size[1]) * classes // size[1]
    return mask


def write_set(root: Path, counts: tuple[int, int] = (8, 4), classes: int = len(NAMES), **entries: object) -> Path:
    """A clean set of one's own, named by NAMES or by `entries`, which go into its segue.yaml."""
    random = np.random.default_rng(0)
    for split, count in zip(("train", "val"), counts, strict=True):
        for what in ("images", "masks"):
            (root / split / what).mkdir(parents=True)
        for number in range(count):
            mask = scene(random, classes=classes)
            image = 7 * mask[..., None] + random.integers(0, 100, (*mask.shape, 3))
            save(root / split / "images" / f"{split}{number}.png", image.astype(np.uint8))
            save(root / split / "masks" / f"{split}{number}.png", mask)
    return describe(root, **entries)


def describe(root: Path, **entries: object) -> Path:
    (root / "segue.yaml").write_text(yaml.safe_dump({"names": NAMES, **entries}))
    return root


def masks_of(root: Path) -> list[Path]:
    return sorted(root.glob("*/masks/*"))


def change(root: Path, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], some: int | None = None) -> None:
    """Each mask, or the first ones, with other numbers."""
    for path in masks_of(root)[:some]:
        save(path, function(np.array(PIL.Image.open(path))))


def names(found: Examination) -> list[str]:
    return [fault.name for fault in found.faults]


def examined(root: Path) -> Examination:
    return examine("folder", str(root))


# Each plants one fault into the clean set.


def off_by_one(root: Path) -> None:
    change(root, lambda mask: mask + 1)


def background_is_a_class(root: Path) -> None:
    describe(root, names=NAMES[1:])


def zero_255(root: Path) -> None:
    describe(root, names=["background", "car"])
    change(root, lambda mask: np.where(mask == 2, 255, 0).astype(np.uint8))


def zero_255_of_one_class(root: Path) -> None:
    describe(root, names=["car"])
    change(root, lambda mask: np.where(mask == 2, 255, 0).astype(np.uint8))


def colours(root: Path) -> None:
    change(root, Labels.from_names(NAMES).colorize)


def grey_colours(root: Path) -> None:
    change(root, lambda mask: mask[..., None].repeat(3, axis=2), some=1)


def jpeg_mask(root: Path) -> None:
    for path in masks_of(root)[:2]:
        save(path.with_suffix(".jpg"), np.array(PIL.Image.open(path)))
        path.unlink()


def jpeg_mask_with_the_name_of_a_png(root: Path) -> None:
    path = masks_of(root)[0]
    save(path, np.array(PIL.Image.open(path)), format="JPEG")


def blend(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = cv2.resize(mask, (28, 21), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def anti_aliased(root: Path) -> None:
    """Blended class numbers are class numbers again, but for their place."""
    change(root, blend)


def anti_aliased_black_and_white(root: Path) -> None:
    describe(root, names=["background", "car"], mapping={0: 0, 255: 1})
    change(root, lambda mask: blend(np.where(mask >= 2, 255, 0).astype(np.uint8)))


def label_ids(root: Path) -> None:
    describe(root, names=[*CITYSCAPES.names])
    ids = np.array([7, 11, 23, 26], np.uint8)
    change(root, lambda mask: ids[mask])


def unknown_label(root: Path) -> None:
    def plant(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mask[20:30, 20:30] = 9
        return mask

    change(root, plant, some=2)


def one_unknown_label_after_the_last(root: Path) -> None:
    def plant(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        mask[20:30, 20:30] = len(NAMES)
        return mask

    change(root, plant, some=1)


def size_differs(root: Path) -> None:
    change(root, lambda mask: mask[:-1], some=1)


def orientation(root: Path) -> None:
    change(root, lambda mask: np.rot90(mask).copy(), some=1)


def orientation_in_exif(root: Path) -> None:
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    path = sorted(root.glob("train/images/*"))[0]
    image = PIL.Image.open(path)
    path.unlink()
    image.save(path.with_suffix(".jpg"), exif=exif)


def sixteen_bit(root: Path) -> None:
    path = masks_of(root)[0]
    save(path, np.array(PIL.Image.open(path)).astype(np.uint16))


def sixteen_bit_of_large_numbers(root: Path) -> None:
    path = masks_of(root)[0]
    save(path, np.array(PIL.Image.open(path)).astype(np.uint16) * 1000)


def empty_mask(root: Path) -> None:
    change(root, lambda mask: np.full_like(mask, 255), some=1)


def empty_mask_of_background(root: Path) -> None:
    describe(root, names=["background", *NAMES[1:]])
    change(root, np.zeros_like, some=1)


def class_missing(root: Path) -> None:
    describe(root, names=[*NAMES, "bicycle"])


def class_only_in_val(root: Path) -> None:
    for path in root.glob("train/masks/*"):
        mask = np.array(PIL.Image.open(path))
        save(path, np.where(mask == 3, 2, mask).astype(np.uint8))


def no_partner_of_an_image(root: Path) -> None:
    masks_of(root)[3].unlink()


def no_partner_of_a_mask(root: Path) -> None:
    sorted(root.glob("val/images/*"))[0].unlink()


def no_partner_at_all(root: Path) -> None:
    for path in masks_of(root):
        path.rename(path.with_stem(f"{path.stem}_mask"))


def duplicate(root: Path) -> None:
    (root / "val/images/val1.png").write_bytes((root / "train/images/train2.png").read_bytes())


def unreadable_image(root: Path) -> None:
    path = root / "train/images/train1.png"
    path.write_bytes(path.read_bytes()[:-2000])


def unreadable_mask(root: Path) -> None:
    masks_of(root)[1].write_bytes(b"")


def deep_image(root: Path) -> None:
    path = next((root / "train" / "images").iterdir())
    save(path, np.full((48, 64), 999, np.uint16))


def one_class(root: Path) -> None:
    describe(root, names=["car"])
    change(root, lambda mask: (mask == 2).astype(np.uint8))


def layout(root: Path) -> None:
    (root / "val").rename(root / "validation")


PLANTED = (
    (off_by_one, "off-by-one"),
    (background_is_a_class, "background-is-a-class"),
    (zero_255, "zero-255"),
    (zero_255_of_one_class, "zero-255"),
    (colours, "colours"),
    (grey_colours, "colours"),
    (jpeg_mask, "jpeg-mask"),
    (jpeg_mask_with_the_name_of_a_png, "jpeg-mask"),
    (anti_aliased, "anti-aliased"),
    (anti_aliased_black_and_white, "anti-aliased"),
    (label_ids, "label-ids"),
    (unknown_label, "unknown-label"),
    (one_unknown_label_after_the_last, "unknown-label"),
    (size_differs, "size-differs"),
    (orientation, "orientation"),
    (orientation_in_exif, "orientation"),
    (sixteen_bit_of_large_numbers, "sixteen-bit"),
    (empty_mask, "empty-mask"),
    (empty_mask_of_background, "empty-mask"),
    (class_missing, "class-missing"),
    (class_only_in_val, "class-only-in-val"),
    (no_partner_of_an_image, "no-partner"),
    (no_partner_of_a_mask, "no-partner"),
    (no_partner_at_all, "no-partner"),
    (duplicate, "duplicate"),
    (deep_image, "unsuitable"),
    (one_class, "one-class"),
    (unreadable_image, "unreadable"),
    (unreadable_mask, "unreadable"),
    (layout, "layout"),
)


@pytest.mark.parametrize(("plant", "name"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_fault_is_named_and_no_other(plant: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    plant(root)
    found = examined(root)
    assert names(found) == [name]
    if any(found.readings.values()):
        assert picture(found).width == 1280
    if name == "layout":
        return

    def both() -> None:
        quick_check(create_dataset("folder", str(root)), create_dataset("folder", str(root), "val"))

    if any(fault.broken for fault in found.faults):
        with pytest.raises(DataError, match=rf"^{name}: |has no (mask|image) of the same name"):
            both()
    else:
        both()


def test_every_kind_of_fault_is_planted() -> None:
    assert {name for _, name in PLANTED} | {"train-ids", "no-description", "misplaced"} == set(KINDS)


def test_train_ids_in_cityscapes(tmp_path: Path) -> None:
    """Of both kinds of masks the label ids are right."""
    random = np.random.default_rng(0)
    for kind in ("ids", "train-ids"):
        for split in ("train", "val"):
            for number in range(4):
                image = tmp_path / kind / "leftImg8bit" / split / "ulm" / f"ulm_00000{number}_000000{IMAGE}"
                mask = tmp_path / kind / "gtFine" / split / "ulm" / f"ulm_00000{number}_000000{MASK}"
                for path in (image, mask):
                    path.parent.mkdir(parents=True, exist_ok=True)
                classes = scene(random, (96, 128), 19)
                ids = np.array([label for label, _, place, _ in LABEL_IDS if place != IGNORE], np.uint8)[classes]
                save(image, random.integers(0, 255, (96, 128, 3), np.uint8))
                save(mask, classes if kind == "train-ids" else ids)
    assert names(examine("cityscapes", str(tmp_path / "ids"))) == []
    assert names(examine("cityscapes", str(tmp_path / "train-ids"))) == ["train-ids"]


CLEAN: dict[str, Callable[[Path], object]] = {
    "plain": lambda root: None,
    "with void": lambda root: change(root, lambda mask: np.where(mask == 0, 255, mask), some=3),
    "black and white, mapped": lambda root: (
        describe(root, names=["background", "car"], mapping={0: "background", 255: "car"}),
        change(root, lambda mask: np.where(mask == 2, 255, 0).astype(np.uint8)),
    ),
    "black and void": lambda root: (
        describe(root, names=["background", "car"], ignore=[255]),
        change(root, lambda mask: np.where(mask > 2, 255, mask == 2).astype(np.uint8)),
        change(root, lambda mask: np.where(mask == 1, 0, mask), some=2),
    ),
    "16 bits": sixteen_bit,
    "from one on, mapped": lambda root: (
        describe(root, mapping={number + 1: name for number, name in enumerate(NAMES)}),
        change(root, lambda mask: mask + 1),
    ),
    "a label that is ignored": lambda root: describe(root, names=NAMES[:3], ignore=[3]),
    "palette": lambda root: [PIL.Image.open(path).convert("P").save(path) for path in masks_of(root)],
    "one bit": lambda root: (
        describe(root, names=["sky", "car"]),
        [PIL.Image.fromarray(np.array(PIL.Image.open(path)) == 2).save(path) for path in masks_of(root)],
    ),
    "noise": lambda root: change(root, lambda mask: np.random.default_rng(0).integers(0, 4, mask.shape, np.uint8)),
    "a class that val lacks": lambda root: [
        save(path, np.array(PIL.Image.open(path)).clip(0, 2)) for path in root.glob("val/masks/*")
    ],
    "many masks of background": lambda root: (
        describe(root, names=["background", *NAMES[1:]]),
        change(root, np.zeros_like, some=4),
    ),
    "photos that are turned": lambda root: (orientation_in_exif(root), orientation(root)),
}


@pytest.mark.parametrize("alter", CLEAN.values(), ids=CLEAN.keys())
def test_a_clean_set_has_no_faults(alter: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set")
    alter(root)
    assert names(examined(root)) == []
    quick_check(create_dataset("folder", str(root)), create_dataset("folder", str(root), "val"))
    assert not capsys.readouterr().out


def link_some(source: Path, target: Path, folders: dict[str, str], count: int = 20) -> Path:
    """Every few files of the folders, and those of the same name (but for the suffix) in their partners."""
    for images, masks in folders.items():
        for folder in (images, masks):
            (target / folder).mkdir(parents=True)
        files = sorted((source / images).iterdir())
        for file in files[:: max(1, len(files) // count)]:
            mask = source / masks / f"{file.stem}.png"
            for path in (file, mask):
                (target / path.relative_to(source)).symlink_to(path)
    return target


class TestRealData:
    def test_camvid(self, tmp_path: Path) -> None:
        root = link_some(real_data("camvid"), tmp_path, {"train": "trainannot", "val": "valannot"})
        assert names(examine("camvid", str(root))) == []

    def test_nuclei(self, tmp_path: Path) -> None:
        folders = {f"{split}/images": f"{split}/instances" for split in ("train", "val")}
        assert names(examine("nuclei", str(link_some(real_data("nuclei"), tmp_path, folders)))) == []

    def test_em(self) -> None:
        found = examine("em", str(real_data("em")))
        assert names(found) == []
        assert picture(found).width == 1280

    @pytest.mark.parametrize("blend", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, "jpeg"])
    @pytest.mark.parametrize("scale", [0.7, 1.3])
    def test_masks_that_were_resized_with_blending(self, scale: float, blend: int | str, tmp_path: Path) -> None:
        root = write_set(tmp_path / "set", (0, 0), names=[*CAMVID.names, "void"])
        random = np.random.default_rng(0)
        for split in ("train", "val"):
            for path in sorted((real_data("camvid") / f"{split}annot").iterdir())[::50]:
                mask = np.array(PIL.Image.open(path))
                if blend == "jpeg":
                    save(tmp_path / "x.jpg", mask, quality=95)
                    mask = np.array(PIL.Image.open(tmp_path / "x.jpg"))
                else:
                    mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=blend)
                save(root / split / "masks" / path.name, mask)
                save(root / split / "images" / path.name, random.integers(0, 255, (*mask.shape, 3), np.uint8))
        assert names(examined(root)) == ["anti-aliased"]


@pytest.mark.parametrize("name", ["cells", "streets"])
def test_drawn_data_have_no_faults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 12), ("val", 4)):
        monkeypatch.setitem(COUNTS, split, count)
    found = examine(name)
    assert set(names(found)) <= {"class-missing", "class-only-in-val"}  # so few scenes lack the rarest
    assert picture(found).width == 1280


def test_the_lines_for_segue_yaml_mend_the_set(tmp_path: Path) -> None:
    for plant in (off_by_one, zero_255, zero_255_of_one_class, one_class, label_ids, unknown_label, background_is_a_class):
        root = write_set(tmp_path / plant.__name__)
        plant(root)
        lines = examined(root).faults[0].lines
        if plant is background_is_a_class:
            lines = lines.splitlines()[0]
        entries = yaml.safe_load((root / "segue.yaml").read_text()) | yaml.safe_load(lines)
        (root / "segue.yaml").write_text(yaml.safe_dump(entries))
        assert {*names(examined(root))} <= {"class-missing"}, plant.__name__  # Cityscapes has more classes than are drawn


PALETTES = {
    "the names' own": (Labels(tuple(NAMES), ((1, 2, 3), (90, 9, 9), (9, 90, 9), (200, 9, 90))), {"palette": True}),
    "VOC": (Labels(VOC.names[:4], VOC.palette[:4]), {}),
    "Cityscapes": (CITYSCAPES, {}),
    "CamVid": (CAMVID, {}),
}


@pytest.mark.parametrize(("labels", "entries"), PALETTES.values(), ids=PALETTES.keys())
@pytest.mark.parametrize("described", [True, False])
def test_colours_become_numbers(labels: Labels, entries: dict[str, object], described: bool, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", classes=len(labels))
    truth = {path.name: np.array(PIL.Image.open(path)) for path in masks_of(root)}
    change(root, labels.colorize)
    if described:
        palette = {"palette": [[*color] for color in labels.palette]} if entries else {}
        describe(root, names=[*labels.names], **palette)
    else:
        (root / "segue.yaml").unlink()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found = examined(root)
    assert names(found) == ["colours"] if described else ["no-description", "colours"]
    assert found.meaning
    out = tmp_path / "converted"
    assert convert(root, out, found.meaning) == (12, [], 0)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert names(examined(out)) == []
    samples = create_dataset("folder", str(out))
    if described or labels in (CITYSCAPES, CAMVID):
        assert samples.labels.names == labels.names
        assert samples.labels.palette == labels.palette
    for index in range(len(samples)):
        mask = samples[index]["mask"]
        if described or not entries:
            assert np.array_equal(mask, truth[f"train{index}.png"])
        assert np.array_equal(samples.labels.colorize(mask), labels.colorize(truth[f"train{index}.png"]))


def test_smooth_edges_between_colours_are_ignored(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    truth = {path.name: np.array(PIL.Image.open(path)) for path in masks_of(root)}
    labels = Labels(tuple(NAMES), ((0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250)))
    change(root, lambda mask: cv2.blur(labels.colorize(mask), (3, 3)))  # type: ignore[return-value]
    found = examined(root)
    assert found.meaning
    convert(root, tmp_path / "out", found.meaning)
    colours = dict(zip(labels.palette, range(4), strict=True))
    samples = create_dataset("folder", str(tmp_path / "out"))
    for index in range(len(samples)):
        mask = samples[index]["mask"]
        shown = [colours[samples.labels.palette[number]] for number in range(4)]
        sure = mask != IGNORE
        assert 0.5 < sure.mean() < 1
        assert (np.array(shown)[mask[sure]] == truth[f"train{index}.png"][sure]).mean() > 0.99


@pytest.mark.parametrize(("numbers", "lines"), [
    ((0, 1), {"names": ["background", "object"]}),
    ((0, 255), {"names": ["background", "object"], "mapping": {0: "background", 255: "object"}}),
    ((1, 2, 3), {"names": ["class_0", "class_1", "class_2"], "mapping": {1: "class_0", 2: "class_1", 3: "class_2"}}),
    ((0, 1, 2, 255), {"names": ["class_0", "class_1", "class_2"]}),
])  # fmt: skip
def test_a_folder_without_a_description_gets_one(numbers: tuple[int, ...], lines: dict[str, object], tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", classes=len(numbers))
    change(root, lambda mask: np.array(numbers, np.uint8)[mask])
    (root / "segue.yaml").unlink()
    found = examined(root)
    assert names(found) == ["no-description"]
    assert yaml.safe_load(found.faults[0].lines) == lines
    (root / "segue.yaml").write_text(found.faults[0].lines)
    assert names(examined(root)) == []


def test_a_folder_without_splits_gets_some(tmp_path: Path) -> None:
    write_set(tmp_path / "set", (30, 0))
    root = tmp_path / "set" / "train"
    found = examined(root)
    assert names(found) == ["no-description"]
    (root / "segue.yaml").write_text(found.faults[0].lines)
    found = examined(root)
    assert names(found) == []
    assert sum(map(len, found.readings.values())) == 30


def test_a_set_that_is_converted_can_be_trained_on(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    colours(root)
    recipe = replace(tiny_recipe(root, batch_size=4), data="folder", classifier="")
    with pytest.raises(DataError, match=r"colours: 12 files: .*train0\.png"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit) as stop:
        doctor([str(root), "--out", str(tmp_path / "look.jpg"), "--convert", str(tmp_path / "numbers")])
    assert stop.value.code == 1
    train(replace(recipe, root=str(tmp_path / "numbers"), epochs=1), tmp_path / "run")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_set(tmp_path / "set")
    doctor([str(root)])
    assert "set: 8 train, 4 val images\nno faults found" in capsys.readouterr().out
    assert read_image("doctor/set.jpg").shape[1] == 1280

    off_by_one(root)
    with pytest.raises(SystemExit) as stop:
        doctor(["--data", "folder", "--root", str(root), "--out", "here/picture.png"])
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert "off-by-one: 12 files: " in out and "mapping: {0: ignore, 1: sky" in out
    assert read_image("here/picture.png").shape[1] == 1280


def test_numbers_that_jpeg_has_blurred_are_not_converted(tmp_path: Path) -> None:
    for names, apart in ((["sky", "car"], 255), (NAMES, 1)):
        root = write_set(
            tmp_path / f"{apart}", classes=len(names), names=names, mapping={apart * i: i for i in range(len(names))}
        )
        for path in masks_of(root):
            mask = np.array(PIL.Image.open(path))
            path.unlink()
            save(path.with_suffix(".jpg"), mask * np.uint8(apart), quality=95)
        with pytest.raises(SystemExit if apart > 1 else DataError, match=r"1|jpeg-mask: labels .* cannot be told apart"):
            doctor([str(root), "--out", str(tmp_path / "x.jpg"), "--convert", str(tmp_path / f"to-{apart}")])
    assert not (tmp_path / "to-1").exists()
    for path in masks_of(tmp_path / "to-255"):
        truth = np.array(PIL.Image.open(tmp_path / "255" / path.relative_to(tmp_path / "to-255").with_suffix(".jpg")))
        mask = np.array(PIL.Image.open(path))
        assert np.array_equal(mask[mask < IGNORE], (truth > 127)[mask < IGNORE])
        assert (mask < IGNORE).mean() > 0.9


def test_a_folder_without_a_validation_split(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    (root / "segue.yaml").unlink()
    layout(root)
    assert names(examined(root)) == ["layout", "no-description"]


@pytest.mark.parametrize(("args", "message"), [
    ([], r"name the folder of the data"),
    (["nowhere"], r"no folder nowhere"),
    (["--data", "camvod", "--root", "x"], r'no data set "camvod"; did you mean "camvid"'),
    (["--data", "camvid", "--root", "x"], r"there is no folder x.train"),
    (["x", "--root", "y"], r"named twice"),
    (["set", "--convert", "set"], r"set is there already"),
    (["--data", "streets", "--convert", "new"], r"--convert is for data of one's own"),
])  # fmt: skip
def test_wrong_arguments(args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "set")
    with pytest.raises(ValueError, match=message):
        doctor(args)


def test_the_command_line_says_it_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set")
    unreadable_mask(root)
    assert call(monkeypatch, "doctor", root, "--out", tmp_path / "x.jpg") == 1
    said = capsys.readouterr()
    assert "unreadable: " in said.out and not said.err


def test_quick_check_takes_any_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    plain = [{"image": mask[..., None], "mask": mask}] * 3
    quick_check(plain, create_dataset("camvid", str(write_camvid(tmp_path)), "val"))
    with pytest.raises(DataError, match="training split is empty"):
        quick_check([], plain)
    assert not capsys.readouterr().out


def test_a_split_that_holds_val_has_no_duplicates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "own")
    train_data, val_data = (create_dataset("folder", str(root), split) for split in ("train", "val"))
    train_data.pairs += val_data.pairs  # type: ignore[attr-defined]
    quick_check(train_data, val_data)
    assert capsys.readouterr().out == ""


def test_the_picture_needs_a_picture_s_name(tmp_path: Path) -> None:
    root = write_set(tmp_path / "own")
    with pytest.raises(ValueError, match=r"out \(=.*\) must be a file that ends in \.jpg or \.png"):
        doctor([str(root), "--out", str(tmp_path / "picture")])


def lines_used(root: Path, lines: str) -> list[str]:
    """The faults that are left once the lines stand in segue.yaml."""
    entries = yaml.safe_load((root / "segue.yaml").read_text()) | yaml.safe_load(lines)
    (root / "segue.yaml").write_text(yaml.safe_dump(entries))
    return names(examined(root))


def quick(root: Path) -> None:
    quick_check(create_dataset("folder", str(root)), create_dataset("folder", str(root), "val"))


def test_a_void_label_after_the_last_can_be_ignored(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", names=NAMES[:3])
    fault = examined(root).faults[0]
    assert fault.name == "background-is-a-class" and "Only you know" in fault.way_out
    assert lines_used(root, fault.lines.splitlines()[2]) == []
    assert create_dataset("folder", str(root)).table[:4].tolist() == [0, 1, 2, IGNORE]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("labels", "classes"), [
    ((0, 2), ["Hintergrund", "Zelle"]),
    ((0, 128), ["background", "cell"]),
    ((0, 85, 170), ["a", "b", "c"]),
    ((0, 254, 255), ["a", "b", "c"]),
])  # fmt: skip
def test_as_many_odd_labels_as_names_are_mapped_in_order(labels: tuple[int, ...], classes: list[str], tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", classes=len(labels), names=classes)
    change(root, lambda mask: np.array(labels, np.uint8)[mask])
    fault = examined(root).faults[0]
    assert (fault.name, yaml.safe_load(fault.lines)) == ("unknown-label", {"mapping": dict(zip(labels, classes, strict=True))})
    assert lines_used(root, fault.lines) == []


def test_instances_are_not_to_be_ignored(tmp_path: Path) -> None:
    def number(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        cell = np.pad(np.ones((10, 14), np.uint8), 1)
        return np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), cell)

    root = write_set(tmp_path / "set", names=["background", "cell"])
    change(root, number)
    fault = examined(root).faults[0]
    assert fault.name == "unknown-label" and not fault.lines and "--data nuclei" in fault.way_out


def test_a_name_that_is_dropped_shifts_no_other(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", names=[*NAMES[:2], "bicycle", *NAMES[2:]], ignore=[5])
    change(root, lambda mask: mask + (mask >= 2).astype(np.uint8))
    fault = examined(root).faults[0]
    assert fault.name == "class-missing" and not fault.broken
    assert lines_used(root, fault.lines) == []
    samples = create_dataset("folder", str(root))
    assert samples.labels.names == tuple(NAMES)
    assert samples.table[[0, 1, 3, 4, 5]].tolist() == [0, 1, 2, 3, IGNORE]  # type: ignore[attr-defined]


def test_if_number_0_is_missing_the_labels_may_be_counted_from_1(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", classes=3)
    change(root, lambda mask: mask + 1)
    assert "counted from 1" in examined(root).faults[0].found


def test_palettes_that_differ_mean_nothing(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    for path in masks_of(root):
        PIL.Image.fromarray(Labels.from_names(NAMES).colorize(np.array(PIL.Image.open(path)))).quantize(4).save(path)
    other = PIL.Image.open(masks_of(root)[0])
    other.putpalette([9, 9, 9, 90, 9, 9, 9, 90, 9, 9, 9, 90])
    other.save(masks_of(root)[0])
    found = examined(root)
    assert names(found) == ["colours"]
    assert "--convert" not in found.faults[0].way_out  # it would take the numbers as they are
    with pytest.raises(DataError, match="colours: "):
        quick(root)


def test_the_same_palette_in_all_masks_is_clean(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    for number, path in enumerate(masks_of(root)):
        mask = PIL.Image.open(path).convert("P")
        if number:  # one is left grey
            mask.putpalette([*np.array(VOC.palette, np.uint8).reshape(-1)])
        mask.save(path)
    assert names(examined(root)) == []


def test_black_and_white_masks_among_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set", classes=2, names=["background", "cell"])
    change(root, lambda mask: mask * np.uint8(255), some=2)
    fault = examined(root).faults[0]
    assert (fault.name, list(fault.files)) == ("zero-255", [str(path) for path in masks_of(root)[:2]])
    quick(root)  # a doubt, which is printed
    assert not fault.broken
    assert capsys.readouterr().out.startswith("zero-255: 2 files")
    for line in fault.lines.splitlines():  # the two ways out
        assert lines_used(root, line) == []
        describe(root, names=["background", "cell"])

    void = write_set(tmp_path / "void", classes=3, names=["background", "cell"])
    change(void, lambda mask: np.array([0, 1, 255], np.uint8)[mask])
    change(void, lambda mask: np.where(mask == 1, 0, mask), some=2)
    assert names(examined(void)) == []


def test_a_thin_contour_is_not_anti_aliased(tmp_path: Path) -> None:
    def contour(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        cell = (mask == 2).astype(np.uint8)
        return cell + cv2.erode(cell, np.ones((3, 3), np.uint8))

    root = write_set(tmp_path / "set", names=["background", "border", "cell"])
    change(root, contour)
    assert names(examined(root)) == []


def test_smooth_edges_of_known_labels_are_a_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_set(tmp_path / "set")
    anti_aliased(root)
    quick(root)
    assert "anti-aliased: " in capsys.readouterr().out


@pytest.mark.parametrize(("label", "name"), [(255, "empty-mask"), (0, "class-missing"), (1, "class-missing")])
@pytest.mark.parametrize("split", ["train", "*"])
def test_nothing_to_learn_is_not_trained(label: int, name: str, split: str, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", classes=2, names=["one", "two"])
    for path in root.glob(f"{split}/masks/*"):
        save(path, np.full_like(np.array(PIL.Image.open(path)), label))
    if split == "train":
        name = name.replace("class-missing", "class-only-in-val")
    found = examined(root)
    assert name in names(found)
    with pytest.raises(DataError, match=f"{name}: "):
        quick(root)


def test_black_and_white_membranes_are_told_their_polarity(tmp_path: Path) -> None:
    for number in range(30):
        for what in ("images", "membranes"):
            (tmp_path / what).mkdir(exist_ok=True)
            grey = np.random.default_rng(number).integers(0, 2, (16, 16), np.uint8) * np.uint8(255)
            save(tmp_path / what / f"{number:02}.png", grey)
    fault = examine("em", str(tmp_path)).faults[0]
    assert fault.name == "zero-255" and "255 is cell" in fault.way_out
