"""EM, nuclei, PASCAL VOC and SUN RGB-D: tiny archives in the true layouts, whole and with faults planted in them."""

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from helpers.extras import needed, real_data
from segue.data import create_dataset
from segue.data.em import EM, Em
from segue.data.nuclei import NUCLEI, Nuclei
from segue.data.samples import DataError
from segue.data.sunrgbd import SUNRGBD, SunRgbd
from segue.data.voc import VOC, Voc

SIZE = (12, 16)


def grey(number: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, SIZE, np.uint8)


def picture(number: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)


def labels_of(values: list[int], dtype: type = np.uint8) -> NDArray:
    """A mask that has all of these labels."""
    return np.resize(np.array(values, dtype), SIZE)


def save(path: Path, array: NDArray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = PIL.Image.fromarray(array)
    if palette:
        file = file.convert("P")
        file.putpalette([i for color in VOC.palette for i in color])
    file.save(path)
    return path


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_pages(path: Path, pages: list[NDArray[np.uint8]]) -> None:
    first, *others = map(PIL.Image.fromarray, pages)
    first.save(path, save_all=True, append_images=others)


class TestEm:
    @staticmethod
    def write_stacks(root: Path, slices: int = 30) -> None:
        write_pages(root / "train-volume.tif", [grey(i) for i in range(slices)])
        write_pages(root / "train-labels.tif", [labels_of([0, 255, 255, *[0] * i]) for i in range(slices)])

    @staticmethod
    def write_folders(root: Path, slices: int = 30) -> None:
        for i in range(slices):
            save(root / "images" / f"{i:02}.png", grey(i))
            save(root / "membranes" / f"{i:02}.png", labels_of([1, 0, 0, *[1] * i]))

    @pytest.mark.parametrize("write", ["write_stacks", "write_folders"])
    def test_both_layouts_give_the_same_samples(self, write: str, tmp_path: Path) -> None:
        getattr(self, write)(tmp_path)
        train, val = Em(tmp_path, "train"), Em(tmp_path, "val")
        assert (len(train), len(val)) == (24, 6)
        for samples, index, number in ((train, 0, 0), (train, 23, 23), (val, 0, 24), (val, 5, 29)):
            samples.check(index)
            sample = samples[index]
            assert sample["image"].shape == (*SIZE, 1)
            assert np.array_equal(sample["image"][..., 0], grey(number))
            assert np.array_equal(sample["mask"], labels_of([1, 0, 0, *[1] * number]))
            assert np.array_equal(samples.mask(index), sample["mask"])
            assert str(number) in samples.name(index)

    def test_labels(self) -> None:
        assert EM.names == ("cell", "membrane")
        assert EM.colorize(np.array([[0, 1]], np.uint8)).tolist() == [[[255] * 3, [0] * 3]]  # the challenge's own picture

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folder .*images; .*train-volume\.tif.*imagej.net.*--root"):
            Em(tmp_path)

    @pytest.mark.parametrize("write", ["write_stacks", "write_folders"])
    def test_other_numbers_of_slices(self, write: str, tmp_path: Path) -> None:
        getattr(self, write)(tmp_path, 29)
        with pytest.raises(DataError, match=r"has 29 slice\(s\); it must have 30"):
            Em(tmp_path)

    def test_labels_without_a_volume(self, tmp_path: Path) -> None:
        self.write_stacks(tmp_path)
        (tmp_path / "train-labels.tif").unlink()
        with pytest.raises(DataError, match=r"train-labels\.tif does not exist"):
            Em(tmp_path)

    def test_no_test_split(self, tmp_path: Path) -> None:
        self.write_folders(tmp_path)
        with pytest.raises(DataError, match=r"split \(='test'\) must be one of train, val"):
            Em(tmp_path, "test")

    def test_polarity_is_never_guessed(self, tmp_path: Path) -> None:
        self.write_folders(tmp_path)
        save(tmp_path / "membranes" / "03.png", labels_of([0, 255]))  # the challenge's labels in the folders
        with pytest.raises(DataError, match=r"03\.png has the label 255; allowed are 0 to 1"):
            Em(tmp_path).check(3)

    def test_colours_are_refused(self, tmp_path: Path) -> None:
        self.write_folders(tmp_path)
        save(tmp_path / "images" / "00.png", picture())
        with pytest.raises(DataError, match=r"00\.png has the mode RGB"):
            Em(tmp_path).check(0)

    def test_the_real_data(self) -> None:
        samples = [*Em(real_data("em"), "train"), *Em(real_data("em"), "val")]
        assert len(samples) == 30
        assert {sample["image"].shape for sample in samples} == {(512, 512, 1)}
        assert np.mean([sample["mask"] for sample in samples]) == pytest.approx(0.22, abs=0.005)
        inside = [sample["image"][..., 0][sample["mask"] == k].mean() for sample in samples[:3] for k in (0, 1)]
        assert inside[0] > inside[1] and inside[2] > inside[3] and inside[4] > inside[5]  # membranes are stained


class TestNuclei:
    @staticmethod
    def write_stage1(root: Path, count: int = 10) -> None:
        for i in range(count):
            place = root / "stage1_train" / f"id{i}"
            save(place / "images" / f"id{i}.png", np.dstack([picture(i), np.full(SIZE, 255, np.uint8)]))  # RGBA, as distributed
            for name, columns in (("a", slice(1, 5)), ("b", slice(5, 9)), ("c", slice(12, 15))):
                nucleus = np.zeros(SIZE, np.uint8)
                nucleus[2:8, columns] = 255
                save(place / "masks" / f"{name}.png", nucleus)

    @staticmethod
    def expected() -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        instances = np.zeros(SIZE, np.uint16)
        instances[2:8, 1:5], instances[2:8, 5:9], instances[2:8, 12:15] = 1, 2, 3
        mask = (instances > 0).astype(np.uint8)
        mask[:, 4:6] = 0  # the first two touch
        return instances, mask

    def test_stage1(self, tmp_path: Path) -> None:
        self.write_stage1(tmp_path)
        splits = {split: Nuclei(tmp_path, split) for split in Nuclei.splits}
        names = {split: [Path(samples.name(i)).stem for i in range(len(samples))] for split, samples in splits.items()}
        assert names == {"train": [f"id{i}" for i in (0, 1, 2, 3, 5, 6, 7, 8)], "val": ["id4", "id9"]}
        splits["val"].check(0)
        sample, (instances, mask) = splits["val"][0], self.expected()
        assert np.array_equal(sample["image"], picture(4))
        assert np.array_equal(sample["instances"], instances) and sample["instances"].dtype == np.uint16
        assert np.array_equal(sample["mask"], mask)
        assert np.array_equal(splits["val"].mask(0), mask)

    def test_folders(self, tmp_path: Path) -> None:
        instances, _ = self.expected()
        instances[instances == 3] = 1000  # more than 8 bits
        save(tmp_path / "train" / "images" / "000.png", grey())
        save(tmp_path / "train" / "instances" / "000.png", instances)
        samples = create_dataset("nuclei", str(tmp_path))
        samples.check(0)
        assert np.array_equal(samples[0]["instances"], instances)
        assert np.array_equal(samples[0]["mask"], self.expected()[1])
        assert np.array_equal(samples[0]["image"], np.dstack([grey()] * 3))
        assert samples.labels == NUCLEI

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folder .*train.images; .*stage1_train\.zip .*BBBC038.*--root"):
            Nuclei(tmp_path)

    def test_faults_name_the_file(self, tmp_path: Path) -> None:
        self.write_stage1(tmp_path)
        samples, place = Nuclei(tmp_path), tmp_path / "stage1_train"
        save(place / "id0" / "masks" / "b.png", np.zeros((3, 3), np.uint8))
        save(place / "id1" / "images" / "id1.png", picture()[:, 1:])
        for path in (place / "id2" / "masks").iterdir():
            path.unlink()
        (place / "id3" / "images" / "id3.png").unlink()
        faults = (
            (0, r"id0.masks.b\.png and .* are \(3, 3\)"), (1, r"id1\.png is 15 x 12"), (2, "id2.masks has no masks"),
            (3, r"id3\.png does not exist"),
        )  # fmt: skip
        for index, message in faults:
            for use in (samples.check, samples.__getitem__):
                with pytest.raises(DataError, match=message):
                    use(index)

    def test_the_real_data(self) -> None:
        assert [len(Nuclei(real_data("nuclei"), split)) for split in Nuclei.splits] == [160, 40]
        samples = Nuclei(real_data("nuclei"), "val")
        for i in range(0, 40, 8):
            samples.check(i)
            sample = samples[i]
            assert sample["image"].shape == (*sample["mask"].shape, 3)
            assert not (sample["mask"] & (sample["instances"] == 0)).any()


class TestVoc:
    TRAIN, VAL, SBD = ["2007_000032", "2007_000039"], ["2007_000033"], ["2007_000033", "2007_000039", "2008_000002"]

    @classmethod
    def write(cls, voc: Path) -> None:
        lists = voc / "ImageSets" / "Segmentation"
        for name, ids in (("train", cls.TRAIN), ("val", cls.VAL), ("trainval", cls.TRAIN + cls.VAL)):
            write_lines(lists / f"{name}.txt", ids)
        for i, name in enumerate([*cls.TRAIN, *cls.VAL]):
            save(voc / "SegmentationClass" / f"{name}.png", labels_of([*range(21), 255, i]), palette=True)
        for name in {*cls.TRAIN, *cls.VAL, *cls.SBD, "2012_004331"}:  # the last is labelled for other tasks alone
            save(voc / "JPEGImages" / f"{name}.jpg", picture())

    @pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOC2012", "."])
    def test_splits_and_masks(self, place: str, tmp_path: Path) -> None:
        self.write(tmp_path / place)
        assert names_of(Voc(tmp_path, "train")) == self.TRAIN
        assert names_of(Voc(tmp_path, "val")) == self.VAL
        assert names_of(Voc(tmp_path, "trainval")) == self.TRAIN + self.VAL
        samples = create_dataset("voc", str(tmp_path), "val")
        samples.check(0)
        assert np.array_equal(samples[0]["mask"], labels_of([*range(21), 255, 2]))
        assert samples[0]["image"].shape == (*SIZE, 3)

    def test_labels(self) -> None:
        colors = dict(zip(VOC.names, VOC.palette, strict=True))
        assert len(VOC) == 21
        assert colors["background"] == (0, 0, 0)
        assert colors["aeroplane"] == (128, 0, 0)
        assert colors["bicycle"] == (0, 128, 0)
        assert colors["person"] == (192, 128, 128)
        assert colors["tvmonitor"] == (0, 64, 128)

    def test_train_aug_from_pngs(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        for name in (*self.TRAIN, *self.SBD):
            save(tmp_path / "SegmentationClassAug" / f"{name}.png", labels_of([20]))
        samples = Voc(tmp_path, "train_aug")
        assert names_of(samples) == [*self.TRAIN, "2008_000002"]  # none of val
        assert np.array_equal(samples.mask(1), labels_of([*range(21), 255, 1]))  # VOC's own
        assert np.array_equal(samples.mask(2), labels_of([20]))

    def test_train_aug_from_sbd(self, tmp_path: Path) -> None:
        self.write(tmp_path / "VOC2012")
        sbd = tmp_path / "benchmark_RELEASE" / "dataset"
        write_lines(sbd / "train.txt", self.SBD[:2])
        write_lines(sbd / "val.txt", self.SBD[2:])
        samples = Voc(tmp_path, "train_aug")
        assert names_of(samples) == [*self.TRAIN, "2008_000002"]
        path = sbd / "cls" / "2008_000002.mat"
        with pytest.raises(DataError, match=r"2008_000002\.mat cannot be read.*get the archive anew"):
            samples.check(2)
        path.parent.mkdir()
        outlines = np.empty((20, 1), object)
        outlines[:, 0] = [needed("scipy.sparse").csc_array(SIZE) for _ in range(20)]
        fields = {"Boundaries": outlines, "Segmentation": labels_of([0, 7]), "CategoriesPresent": np.uint8([[7]])}
        needed("scipy.io").savemat(path, {"GTcls": fields}, do_compression=True)  # as in the archive
        samples.check(2)
        assert np.array_equal(samples[2]["mask"], labels_of([0, 7]))
        needed("scipy.io").savemat(path, {"GTcls": {**fields, "Segmentation": labels_of([0, 21])}})
        with pytest.raises(DataError, match=r"2008_000002\.mat has the label 21; allowed are 0 to 20, 255"):
            samples.check(2)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(DataError, match=r"2008_000002\.mat cannot be read"):
            samples.check(2)

    def test_sbd_without_scipy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(tmp_path)
        write_lines(tmp_path / "benchmark_RELEASE" / "dataset" / "train.txt", self.SBD)
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        with pytest.raises(DataError, match=r"pip install scipy; or put the folder SegmentationClassAug"):
            Voc(tmp_path, "train_aug")

    def test_train_aug_without_sbd(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        with pytest.raises(DataError, match=r"neither .*SegmentationClassAug nor .*benchmark\.tgz.*or use the split train"):
            Voc(tmp_path, "train_aug")

    def test_masks_in_colours_are_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        save(tmp_path / "SegmentationClass" / "2007_000033.png", VOC.colorize(labels_of([0, 15])))
        with pytest.raises(DataError, match=r"2007_000033\.png is no mask: .*convert colours to numbers"):
            Voc(tmp_path, "val").check(0)

    def test_unknown_labels(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        save(tmp_path / "SegmentationClass" / "2007_000033.png", labels_of([0, 21]))
        with pytest.raises(DataError, match=r"2007_000033\.png has the label 21; allowed are 0 to 20, 255"):
            Voc(tmp_path, "val").check(0)

    @pytest.mark.parametrize(("folder", "suffix"), [("JPEGImages", "jpg"), ("SegmentationClass", "png")])
    def test_a_listed_file_is_missing(self, folder: str, suffix: str, tmp_path: Path) -> None:
        self.write(tmp_path)
        (tmp_path / folder / f"2007_000039.{suffix}").unlink()
        with pytest.raises(DataError, match=f"2007_000039 is listed .* but has no .* in {folder}"):
            Voc(tmp_path)

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folder .*JPEGImages; .*VOCtrainval_11-May-2012\.tar .*--root"):
            Voc(tmp_path)
        self.write(tmp_path)
        (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
        with pytest.raises(DataError, match=r"list .*val\.txt is empty; .*ImageSets/Segmentation"):
            Voc(tmp_path, "val")


def names_of(samples: Voc) -> list[str]:
    return [Path(samples.name(i)).stem for i in range(len(samples))]


class TestSunRgbd:
    @staticmethod
    def write(root: Path, train: int = 3, test: int = 2, label: str = "npy") -> None:
        for part, count in (("train", train), ("test", test)):
            places = [f"SUNRGBD/kv1/NYUdata/{part}{i:04}" for i in range(count)]
            write_lines(root / f"{part}_rgb.txt", [f"{place}/image/a.jpg" for place in places])
            write_lines(root / f"{part}_depth.txt", [f"{place}/depth_bfx/a.png" for place in places])
            write_lines(root / f"{part}_label.txt", [f"{place}/label/label.{label}" for place in places])
            for i, place in enumerate(places[:3]):
                save(root / place / "image" / "a.jpg", picture(i))
                save(
                    root / place / "depth_bfx" / "a.png", labels_of([rotated(mm) for mm in (0, 1, 2500, 8191, 10000)], np.uint16)
                )
                path = root / place / "label" / f"label.{label}"
                path.parent.mkdir()
                if label == "npy":
                    np.save(path, labels_of([*range(38)]))
                else:
                    save(path, labels_of([*range(38)]))

    @pytest.mark.parametrize("label", ["npy", "png"])
    def test_samples(self, label: str, tmp_path: Path) -> None:
        self.write(tmp_path, label=label)
        samples = create_dataset("sunrgbd", str(tmp_path), "test")
        assert len(samples) == 2
        samples.check(0)
        sample = samples[0]
        assert sample["image"].shape == (*SIZE, 3)
        assert np.array_equal(sample["mask"], labels_of([255, *range(37)]))  # 0 is void
        assert np.array_equal(samples.mask(0), sample["mask"])
        assert sample["depth"].dtype == np.float32
        expected = np.resize(np.array([0, 0.001, 2.5, 8.191, 10], np.float32), SIZE)  # metres
        assert np.allclose(sample["depth"], expected, atol=1e-6)

    def test_splits(self, tmp_path: Path) -> None:
        self.write(tmp_path, train=1050)
        names = {
            split: [Path(samples.name(i)).parts[-3] for i in range(len(samples))]
            for split in SunRgbd.splits
            for samples in [SunRgbd(tmp_path, split)]
        }
        assert names["val"] == [f"train{i:04}" for i in (*range(450, 500), *range(950, 1000))]
        assert names["trainval"] == [f"train{i:04}" for i in range(1050)]
        assert sorted(names["train"] + names["val"]) == names["trainval"]
        assert names["test"] == ["test0000", "test0001"]

    def test_labels(self) -> None:
        assert len(SUNRGBD) == 37
        assert (SUNRGBD.names[0], SUNRGBD.names[4], SUNRGBD.names[21], SUNRGBD.names[36]) == ("wall", "chair", "ceiling", "bag")

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"train_rgb\.txt cannot be read.*SUNRGBDtoolbox\.zip.*prepare_dataset\.py.*--root"):
            SunRgbd(tmp_path)

    def test_too_few_for_validation(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        with pytest.raises(DataError, match=r"has 3 lines, which leaves none for val"):
            SunRgbd(tmp_path, "val")

    def test_lists_of_unlike_lengths(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        write_lines(tmp_path / "train_depth.txt", ["SUNRGBD/kv1/a.png"])
        with pytest.raises(DataError, match=r"have \[3, 1, 3\] lines"):
            SunRgbd(tmp_path)

    def test_faults_name_the_file(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        samples, place = SunRgbd(tmp_path), tmp_path / "SUNRGBD" / "kv1" / "NYUdata"
        depth, label = place / "train0000" / "depth_bfx" / "a.png", place / "train0000" / "label" / "label.npy"
        good = label.read_bytes()
        faults = [
            (lambda: np.save(label, labels_of([38])), r"label\.npy has the label 38; allowed are 0 to 37"),
            (lambda: np.save(label, labels_of([1], np.float64)), r"label\.npy must hold the labels 0 to 37"),
            (lambda: np.save(label, labels_of([256], np.uint16)), r"label\.npy must hold the labels 0 to 37"),
            (lambda: label.write_bytes(good[:-9]), r"label\.npy cannot be read"),
            (lambda: label.write_bytes(b""), r"label\.npy cannot be read"),
            (lambda: label.unlink(), r"label\.npy does not exist"),
            (lambda: (label.write_bytes(good), save(depth, picture())), r"a\.png has the mode RGB"),
            (lambda: save(depth, grey()[1:].astype(np.uint16)), r"a\.png is 16 x 11 pixels"),
            (lambda: depth.unlink(), r"a\.png does not exist"),
        ]
        for plant, message in faults:
            plant()
            for use in (samples.check, samples.__getitem__):
                with pytest.raises(DataError, match=message):
                    use(0)


def rotated(millimetres: int) -> int:
    """The 16 bits turned left by 3: as the files of SUN RGB-D hold a depth."""
    bits = f"{millimetres:016b}"
    return int(bits[3:] + bits[:3], 2)
