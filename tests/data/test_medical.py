"""ISLES, BraTS and volumes of one's own: tiny archives in the true layouts, whole and with faults planted in them."""

import gzip
import pickle
import re
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.commands import call
from helpers.extras import needed
from segue import load_checkpoint
from segue.data import create_dataset
from segue.data.contract import check_samples
from segue.data.medical import BRATS, ISLES, Brats, Isles, Volumes
from segue.data.nifti import load_volume
from segue.data.samples import DataError

nibabel = needed("nibabel")

SHAPE = (16, 12, 3)
AFFINE = np.array([[0.8, 0, 0, -90], [0, 0.8, 0, -126], [0, 0, 5, -72], [0, 0, 0, 1]])
CT = {"CBF": "CT_CBF", "MTT": "CT_MTT", "CBV": "CT_CBV", "Tmax": "CT_Tmax", "CT": "CT"}


def values(seed: object, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    """A head with zeros about it, along the axes to the right, the front, and up."""
    random = np.random.default_rng(zlib.crc32(str(seed).encode()))
    array = random.uniform(5, 90, shape).astype(np.float32)
    array[:2] = array[:, -1] = 0
    return array


def labels(kinds: tuple[int, ...] = (0, 1), shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    return np.resize(np.repeat(np.array(kinds, np.uint8), 5), shape)


def save(path: Path, array: NDArray, codes: str = "RAS", affine: NDArray = AFFINE) -> Path:
    """As NIfTI, stored along other axes of the patient."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to = nibabel.orientations.axcodes2ornt(codes)
    image = nibabel.Nifti1Image(array, affine)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), to)), path)
    return path


def write_isles(root: Path, cases: int = 5, codes: str = "LPS", shape: tuple[int, ...] = SHAPE) -> None:
    """Where a lesion is, every modality is high."""
    for case in range(1, cases + 1):
        lesion = labels(shape=shape)
        for i, name in enumerate([*CT.values(), "CT_4DPWI", "OT"]):
            file = f"SMIR.Brain.XX.O.{name}.{345561 + 10 * case + i}"
            array = values(10 * case + i, shape) + 60 * lesion
            if name == "CT_4DPWI":  # as distributed, five axes
                array = np.stack([array + 10 * time for time in range(4)], axis=-1)[:, :, :, None].astype(np.int16)
            save(root / f"case_{case}" / file / f"{file}.nii", lesion if name == "OT" else array, codes)
    (root / ".DS_Store").touch()


def write_brats(root: Path, cases: int = 5, suffix: str = ".nii.gz") -> None:
    for case in range(cases):
        place = root / f"BraTS2021_{case:05}" / f"BraTS2021_{case:05}"
        for i, name in enumerate(("flair", "t1", "t1ce", "t2")):
            save(Path(f"{place}_{name}{suffix}"), values(10 * case + i).astype(np.int16), "LPS")
        save(Path(f"{place}_seg{suffix}"), labels((0, 1, 2, 4)), "LPS")


def as_seen(array: NDArray, number: int) -> NDArray:
    """A slice as a radiologist sees it: front up, the patient's right side left."""
    return np.array([[array[x, y, number] for x in reversed(range(SHAPE[0]))] for y in reversed(range(SHAPE[1]))])


def normal(array: NDArray) -> NDArray:
    inside = array[array != 0].astype(np.float64)
    return (array - inside.mean()) / inside.std()


class TestIsles:
    def test_samples(self, tmp_path: Path) -> None:
        write_isles(tmp_path / "TRAINING")
        samples = create_dataset("isles", str(tmp_path), "val")
        assert len(samples) == 3
        for number in range(3):
            samples.check(number)
            sample = samples[number]
            assert sample["image"].shape == (12, 16, 5) and sample["image"].dtype == np.float32
            for channel, seed in enumerate((50, 51, 52, 53)):
                expected = as_seen(normal(values(seed) + 60 * labels()), number)
                assert np.allclose(sample["image"][..., channel], expected, atol=1e-4)
            ctp = np.mean([(values(55) + 60 * labels() + 10 * time).astype(np.int16) for time in range(4)], axis=0)
            assert np.allclose(sample["image"][..., 4], as_seen(normal(ctp), number), atol=1e-4)
            assert np.array_equal(sample["mask"], as_seen(labels(), number)) and sample["mask"].dtype == np.uint8
            assert np.array_equal(samples.mask(number), sample["mask"])
            assert samples.name(number).endswith(f", slice {number}") and "case_5" in samples.name(number)

    def test_whole_cases_are_val_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        write_isles(tmp_path, cases=11)
        names = {split: [Isles(tmp_path, split).name(i) for i in range(len(Isles(tmp_path, split)))] for split in Isles.splits}
        cases = {split: list(dict.fromkeys(int(re.findall(r"case_(\d+)", name)[0]) for name in names[split])) for split in names}
        assert cases == {"train": [1, 2, 3, 4, 6, 7, 8, 9, 11], "val": [5, 10]}
        assert len({*names["train"], *names["val"]}) == 33

    def test_too_few_cases_for_validation(self, tmp_path: Path) -> None:
        write_isles(tmp_path, cases=4)
        with pytest.raises(DataError, match=r"has 4 cases, and every fifth is val, so there is none"):
            Isles(tmp_path, "val")

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folders .*TRAINING.case_\* or .*zenodo\.org/records/17736412.*--root"):
            Isles(tmp_path)
        with pytest.raises(DataError, match=r"split \(='test'\) must be one of train, val"):
            Isles(tmp_path, "test")

    def test_without_nibabel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_isles(tmp_path, cases=1)
        monkeypatch.setitem(sys.modules, "nibabel", None)
        with pytest.raises(DataError, match=r'pip install "segue\[medical\]"'):
            Isles(tmp_path)


class TestBrats:
    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_samples(self, suffix: str, tmp_path: Path) -> None:
        write_brats(tmp_path, suffix=suffix)
        samples = Brats(tmp_path, "val")
        samples.check(1)
        sample = samples[1]
        assert sample["image"].shape == (12, 16, 4)
        assert np.allclose(sample["image"][..., 3], as_seen(normal(values(43).astype(np.int16)), 1), atol=1e-4)
        assert np.array_equal(sample["mask"], as_seen(labels((0, 1, 2, 3)), 1))  # 4 in the file
        assert len(Brats(tmp_path)) == 12

    def test_labels_under_a_slope_and_without_a_number(self, tmp_path: Path) -> None:
        """nibabel saves floats under an integer head with a slope: 1 comes back as 0.996."""
        write_brats(tmp_path, cases=1)
        path = tmp_path / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz"
        expected = Brats(tmp_path).mask(1)
        image = nibabel.load(path)
        floats = np.asarray(image.dataobj).astype(np.float64)
        head = image.header.copy()
        head.set_data_dtype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(floats, image.affine, head), path)
        assert nibabel.load(path).dataobj.slope < 1
        assert np.array_equal(Brats(tmp_path).mask(1), expected)
        nibabel.save(nibabel.Nifti1Image(np.where(floats == 4, np.nan, floats).astype(np.float32), image.affine), path)
        assert np.array_equal(Brats(tmp_path).mask(1), np.where(expected == 3, 255, expected))

    def test_labels(self) -> None:
        assert BRATS.labels.names == ("background", "necrotic core", "edema", "enhancing tumour")
        assert ISLES.labels.names == ("background", "infarct")

    def test_missing_data_say_where_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no folders .*BraTS\*; .*synapse\.org/brats.*--root"):
            Brats(tmp_path)


class TestVolumes:
    TEXT = 'names: [background, tumour]\nmodalities: {t1: "*_t1.nii*"}\nlabel: "*_seg.nii*"\n'

    @classmethod
    def write(cls, root: Path, text: str = TEXT, **codes: str) -> None:
        root.mkdir(exist_ok=True)
        (root / "segue.yaml").write_text(text)
        for name, code in codes.items():
            save(root / name / f"{name}_t1.nii.gz", values(name), code)
            save(root / name / f"{name}_seg.nii.gz", labels(), code)

    @pytest.mark.parametrize("codes", ["RAS", "LPS", "LAI", "PSR", "SAL", "IRP"])
    def test_every_orientation_gives_the_same_slices(self, codes: str, tmp_path: Path) -> None:
        self.write(tmp_path, a=codes)
        save(tmp_path / "a" / "a_seg.nii.gz", labels(), "RAS")  # labels may be stored another way than the image
        samples = Volumes(tmp_path)
        assert len(samples) == 3
        for number in range(3):
            samples.check(number)
            assert np.allclose(samples[number]["image"][..., 0], as_seen(normal(values("a")), number), atol=1e-4)
            assert np.array_equal(samples[number]["mask"], as_seen(labels(), number))

    def test_folders_train_and_val(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        self.write(tmp_path / "train", a="RAS", b="RAS")
        self.write(tmp_path / "val", c="RAS")
        assert len(Volumes(tmp_path)) == 6
        assert [Volumes(tmp_path, "val").name(0)] == [f"{tmp_path / 'val' / 'c'}, slice 0"]

    def test_mapping_and_ignore(self, tmp_path: Path) -> None:
        self.write(tmp_path, self.TEXT + "mapping: {0: background, 2: tumour}\nignore: [3]\ncases: 'p*'\n", p1="RAS", other="RAS")
        save(tmp_path / "p1" / "p1_seg.nii.gz", labels((0, 2, 3)).astype(np.float32))
        assert len(Volumes(tmp_path)) == 3
        assert np.array_equal(Volumes(tmp_path).mask(0), as_seen(np.array([0, 9, 1, 255])[labels((0, 2, 3))], 0))

    def test_scaled_values_and_what_is_no_number(self, tmp_path: Path) -> None:
        """Of the integers in a file the values are slope x integer + offset; nan outside the head is 0."""
        self.write(tmp_path, a="RAS")
        image = nibabel.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), AFFINE)
        image.header.set_slope_inter(0.5, -20)
        nibabel.save(image, tmp_path / "a" / "a_t1.nii.gz")
        expected = np.arange(np.prod(SHAPE)).reshape(SHAPE) * 0.5 - 20
        assert np.allclose(Volumes(tmp_path)[2]["image"][..., 0], as_seen(normal(expected), 2), atol=1e-4)
        array = values("a")
        save(tmp_path / "a" / "a_t1.nii.gz", np.where(array == 0, np.nan, array))
        assert np.allclose(Volumes(tmp_path)[2]["image"][..., 0], as_seen(normal(array), 2), atol=1e-4)

    def test_an_empty_modality_is_zero(self, tmp_path: Path) -> None:
        self.write(tmp_path, a="RAS")
        save(tmp_path / "a" / "a_t1.nii.gz", np.zeros(SHAPE, np.float32))
        assert not Volumes(tmp_path)[0]["image"].any()

    def test_a_file_that_has_changed_is_read_anew(self, tmp_path: Path) -> None:
        self.write(tmp_path, a="RAS")
        samples = Volumes(tmp_path)
        before = samples[0]["image"]
        save(tmp_path / "a" / "a_t1.nii.gz", values("b"))
        assert not np.array_equal(samples[0]["image"], before)

    def test_volumes_are_read_when_they_are_needed_and_few_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.write(tmp_path, **{f"case_{i}": "RAS" for i in range(11)})
        load_volume.cache_clear()
        samples = Volumes(tmp_path)
        assert load_volume.cache_info().misses == 0
        assert [samples[i]["image"].shape for i in range(3)] == [(12, 16, 1)] * 3
        assert load_volume.cache_info().misses == 2  # once for all slices of a case
        for i in range(len(samples)):
            samples[i]
        assert load_volume.cache_info().currsize <= 8
        assert len(pickle.dumps(samples)) < 20_000  # what goes to the processes that load
        monkeypatch.setattr("segue.data.medical.read_volume", lambda path: pytest.fail(f"{path} is read, which is no label")
                            if "_seg" not in path.name else load_volume(path, 0))  # fmt: skip
        samples.mask(0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[1, 2", r"segue\.yaml cannot be read: .*must be YAML"),
            ("3", r"must have the entries names, modalities and label, but it is 3"),
            (TEXT + "labels: x", r'no entry "labels"; did you mean "label"'),
            ('modalities: {t1: "*"}\nlabel: "*"', r"the entry names is missing"),
            ("names: [a]\nlabel: '*'", r"modalities \(=None\) must be names with patterns"),
            ("names: [a]\nmodalities: {t1: 3}\nlabel: '*'", r"modalities \(=\{'t1': 3\}\) must be names with patterns"),
            ("names: [a]\nmodalities: {t1: '*'}", r"label \(=''\) must be a pattern"),
            (TEXT + "averaged: [t2]", r'averaged has "t2", which is no modality; did you mean "t1"'),
            (TEXT + "mapping: {0: lung}", r"mapping takes the label 0 to 'lung'"),
        ],
    )
    def test_faults_of_the_description(self, text: str, message: str, tmp_path: Path) -> None:
        self.write(tmp_path, text)
        with pytest.raises(DataError, match=message):
            Volumes(tmp_path)

    def test_no_description(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no file .*segue\.yaml; .*names, modalities and label"):
            Volumes(tmp_path)


class TestFaults:
    """Each names its file, and the whole data set is refused before it is trained on."""

    @staticmethod
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-60])

    @staticmethod
    def cut_inside(path: Path) -> None:
        """A compressed file that is whole, of a volume that is not."""
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-200]))

    def test_an_infinite_label(self, tmp_path: Path) -> None:
        write_brats(tmp_path, cases=1)
        save(tmp_path / "BraTS2021_00000" / "BraTS2021_00000_seg.nii.gz", np.where(labels() == 1, np.inf, 0))
        with pytest.raises(DataError, match="has the label inf; labels are whole numbers"):
            Brats(tmp_path).mask(1)

    @pytest.mark.parametrize(
        ("plant", "name", "message"),
        [
            (cut, "t2", "cannot be read as NIfTI: .*; copy it anew"),
            (cut_inside, "t2", "cannot be read as NIfTI: .*; copy it anew"),
            (cut, "seg", "cannot be read as NIfTI"),
            (lambda path: path.write_bytes(b""), "t2", "cannot be read as NIfTI"),
            (lambda path: path.write_bytes(b"no NIfTI" * 100), "t2", "cannot be read as NIfTI"),
            (lambda path: path.unlink(), "t2", "cannot be read: No such file"),
            (lambda path: save(path, values(1, (16, 11, 3))), "t2", r"the shape \(16, 11, 3\), but .*flair.* has \(16, 12, 3\)"),
            (lambda path: save(path, labels(shape=(16, 12, 2))), "seg", r"has the shape \(16, 12, 2\), but .*; resample"),
            (lambda path: save(path, values(1, (*SHAPE, 4))), "t2", r"shape .*; T2 must be one volume, not \(4,\) of them"),
            (lambda path: save(path, values(1)[..., 0]), "t2", r"of the shape \(16, 12\); it must be a volume"),
            (lambda path: save(path, values(1).astype(np.complex64)), "t2", r"holds complex64 .*; it must be a volume"),
            (lambda path: save(path, values(1), affine=AFFINE @ np.diag([-1, 1, 1, 1])), "t2", r"lies \d+\.\d voxels away"),
            (lambda path: save(path, labels((0, 3))), "seg", r"has the label 3; allowed are 0 to 2, 4"),
            (lambda path: save(path, labels().astype(np.float32) / 2), "seg", r"has the label 0\.5; labels are whole numbers"),
            (lambda path: save(path, labels().astype(np.int16) * -7), "seg", r"has the label -7; allowed are 0 to 2, 4"),
            (lambda path: save(path, labels().astype(np.int16) * 300), "seg", r"has the label 300; allowed are 0 to 2, 4"),
        ],
    )  # fmt: skip
    def test_a_damaged_file(self, plant: Callable[[Path], object], name: str, message: str, tmp_path: Path) -> None:
        write_brats(tmp_path, cases=1)
        samples = Brats(tmp_path)
        path = tmp_path / "BraTS2021_00000" / f"BraTS2021_00000_{name}.nii.gz"
        plant(path)
        for use in (samples.check, samples.__getitem__, lambda _: check_samples(samples, "train")):
            with pytest.raises(DataError, match=f"{path.name}.*{message}"):
                use(0)

    def test_a_cut_file_that_is_not_compressed(self, tmp_path: Path) -> None:
        write_brats(tmp_path, cases=1, suffix=".nii")
        self.cut(tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t1.nii")
        with pytest.raises(DataError, match=r"_t1\.nii cannot be read as NIfTI: Expected"):
            Brats(tmp_path).check(0)

    def test_a_file_in_several_parts_is_whole(self, tmp_path: Path) -> None:
        """The end of such a file, which gzip allows, tells the length of its last part alone."""
        write_brats(tmp_path, cases=1)
        path = tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz"
        before = Brats(tmp_path)[0]["image"]
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]))
        Brats(tmp_path).check(0)
        assert np.array_equal(Brats(tmp_path)[0]["image"], before)

    def test_a_modality_is_missing_or_there_twice(self, tmp_path: Path) -> None:
        write_brats(tmp_path, cases=1)
        place = tmp_path / "BraTS2021_00000"
        shutil.copy(place / "BraTS2021_00000_t1.nii.gz", place / "copy_t1.nii.gz")
        with pytest.raises(DataError, match=r"00000 has several files \*_t1\.nii\* \(BraTS2021_00000_t1.*, copy_t1.*\) for T1"):
            Brats(tmp_path)
        (place / "copy_t1.nii.gz").unlink()
        (place / "BraTS2021_00000_t1.nii.gz").unlink()
        with pytest.raises(DataError, match=r"BraTS2021_00000 has no file \*_t1\.nii\* for T1; it must have one; BraTS 2021"):
            Brats(tmp_path)


def test_the_command_line_trains_on_volumes_and_scores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = tmp_path / "isles", tmp_path / "run"
    write_isles(root / "TRAINING", shape=(32, 32, 2))
    trained = call(
        monkeypatch, "train", "unet-isles", "--root", root, "--out", run, "--epochs", 1, "--batch-size", 2, "--crop", 32, 32,
        "--workers", 0, "--options", "padding", "same", "width", 4,
    )  # fmt: skip
    assert trained == 0
    model, card = load_checkpoint(run / "last")
    assert card.labels.names == ("background", "infarct") and model.in_channels == 5
    capsys.readouterr()
    assert call(monkeypatch, "evaluate", run / "best", "isles", "--root", root) == 0
    out = capsys.readouterr().out
    assert "infarct" in out and "2 images" in out
