"""NYU Depth v2: tiny archives in the two true layouts, whole and with faults planted in them."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from helpers.extras import needed
from segue.data import create_dataset
from segue.data.nyuv2 import NYUV2, Nyuv2, in_val
from segue.data.samples import DataError

h5py, savemat = needed("h5py"), needed("scipy.io").savemat

SIZE = (12, 16)
KINDS = 50  # of the 894


def picture(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8)


def metres(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).integers(0, 10_000, SIZE).astype(np.float32) / 1000  # type: ignore[return-value]


def kinds(number: int) -> NDArray[np.uint16]:
    """Of things; 0 is void."""
    return np.random.default_rng(number).integers(0, KINDS + 1, SIZE).astype(np.uint16)


def class_of() -> NDArray[np.uint8]:
    """The class, 1 to 40, of the kinds 1 to KINDS."""
    return np.random.default_rng(9).permutation(np.resize(np.arange(1, 41, dtype=np.uint8), KINDS))


def write_mat(root: Path, train: list[int], test: list[int]) -> None:
    root.mkdir(exist_ok=True)
    numbers = range(1, len(train) + len(test) + 1)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:  # MATLAB's axes, seen from Python
        file["images"] = np.stack([picture(i).transpose(2, 1, 0) for i in numbers])
        file["depths"] = np.stack([metres(i).T for i in numbers])
        file["rawDepths"] = np.zeros_like(file["depths"])
        file["labels"] = np.stack([kinds(i).T for i in numbers])
    savemat(root / "splits.mat", {"trainNdxs": np.c_[train].astype(np.uint16), "testNdxs": np.c_[test].astype(np.uint16)})
    savemat(root / "classMapping40.mat", {"mapClass": class_of()[None], "className": np.array(["wall"], object)})


def write_folders(root: Path, train: list[int], test: list[int]) -> None:
    table = np.concatenate([[0], class_of()]).astype(np.uint8)
    for part, numbers in (("train", train), ("test", test)):
        for i in numbers:
            for folder, array in (
                ("rgb", picture(i)), ("depth", np.rint(metres(i) * 1000).astype(np.uint16)), ("labels_40", table[kinds(i)]),
                ("depth_raw", np.zeros(SIZE, np.uint16)), ("labels_894", kinds(i)),
            ):  # fmt: skip
                path = root / part / folder / f"{i:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(array).save(path)
        (root / f"{part}.txt").write_text("".join(f"{i:04}\n" for i in numbers))


@pytest.mark.parametrize("write", [write_mat, write_folders])
class TestBothLayouts:
    def test_samples(self, write: Callable[..., None], tmp_path: Path) -> None:
        write(tmp_path, train=[1, 4], test=[2, 3, 5])
        for split, index, number in (("train", 1, 4), ("trainval", 0, 1), ("test", 2, 5)):
            samples = create_dataset("nyuv2", str(tmp_path), split)
            samples.check(index)
            sample = samples[index]
            assert np.array_equal(sample["image"], picture(number))
            expected = [[255 if kind == 0 else class_of()[kind - 1] - 1 for kind in row] for row in kinds(number)]
            assert sample["mask"].tolist() == expected and sample["mask"].dtype == np.uint8
            assert np.array_equal(samples.mask(index), sample["mask"])
            assert np.allclose(sample["depth"], metres(number), atol=1e-5) and sample["depth"].dtype == np.float32
            assert str(number) in Path(samples.name(index)).name

    def test_splits(self, write: Callable[..., None], tmp_path: Path) -> None:
        train = [*range(1, 400, 2)]
        if write is write_folders:  # 200 lines, of which none is read
            (tmp_path / "train.txt").write_text("".join(f"{i:04}\n" for i in train))
        else:
            write(tmp_path, train, [*range(2, 401, 2)])
        found = {
            split: [Nyuv2(tmp_path, split).name(i) for i in range(len(Nyuv2(tmp_path, split)))] for split in Nyuv2.splits[:3]
        }
        assert len(found["trainval"]) == 200
        assert found["val"] == found["trainval"][180:200]  # the tenth run of 20
        assert sorted([*found["train"], *found["val"]]) == sorted(found["trainval"])

    def test_too_few_for_validation(self, write: Callable[..., None], tmp_path: Path) -> None:
        write(tmp_path, train=[1], test=[2])
        with pytest.raises(DataError, match=r"train list below .* has none for val: it must have 795 images"):
            Nyuv2(tmp_path, "val")


def test_the_official_numbers() -> None:
    assert sum(map(in_val, range(795))) == 75


def test_labels() -> None:
    assert len(NYUV2) == 40
    assert [NYUV2.names[i] for i in (0, 1, 21, 36, 39)] == ["wall", "floor", "ceiling", "bag", "otherprop"]


def test_missing_data_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.txt cannot be read.*nyu_depth_v2_labeled\.mat.*prepare_dataset\.py.*--root"):
        Nyuv2(tmp_path)
    with pytest.raises(DataError, match=r"split \(='all'\) must be one of train, val, trainval, test"):
        Nyuv2(tmp_path, "all")


@pytest.mark.parametrize("module", ["h5py", "scipy.io"])
def test_without_a_reader(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mat(tmp_path, [1], [2])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match="pip install h5py scipy"):
        Nyuv2(tmp_path)


def rewrite(path: Path, **arrays: NDArray) -> None:
    with h5py.File(path, "a") as file:
        for name, array in arrays.items():
            del file[name]
            file[name] = array


@pytest.mark.parametrize(
    ("name", "plant", "message"),
    [
        ("splits.mat", lambda path: path.unlink(), r"no file .*splits\.mat; NYU Depth v2 is"),
        ("splits.mat", lambda path: path.write_bytes(b"x" * 300), r"splits\.mat cannot be read"),
        ("splits.mat", lambda path: savemat(path, {"trainNdxs": [[0]]}), r"splits\.mat has the number 0"),
        ("splits.mat", lambda path: savemat(path, {"trainNdxs": [[1449]]}), r"4 pairs, but splits\.mat .* 1449"),
        ("classMapping40.mat", lambda path: path.unlink(), r"no file .*classMapping40\.mat"),
        ("classMapping40.mat", lambda path: savemat(path, {"mapClass": [[41]]}), r"has classes from 41 to 41"),
        ("classMapping40.mat", lambda path: savemat(path, {"maps": [[1]]}), r"Mapping40\.mat cannot be read: KeyError"),
        ("nyu_depth_v2_labeled.mat", lambda path: path.write_bytes(path.read_bytes()[:3000]), r"labeled\.mat cannot be read"),
        ("nyu_depth_v2_labeled.mat", lambda path: path.write_bytes(b""), r"labeled\.mat cannot be read"),
        ("nyu_depth_v2_labeled.mat", lambda path: rewrite(path, labels=np.zeros((4, 16, 11))), r"labels \(4, 16, 11\); get it"),
    ],
)  # fmt: skip
def test_a_damaged_mat(name: str, plant: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write_mat(tmp_path, [1, 2], [3, 4])
    plant(tmp_path / name)
    with pytest.raises(DataError, match=message):
        Nyuv2(tmp_path)


def test_a_kind_that_has_no_class(tmp_path: Path) -> None:
    write_mat(tmp_path, [1], [2])
    savemat(tmp_path / "classMapping40.mat", {"mapClass": class_of()[None, :20]})
    with pytest.raises(DataError, match=r"pair 1 has the label \d+, but classMapping40\.mat ends at 20"):
        Nyuv2(tmp_path).check(0)


def test_faults_in_the_folders_name_the_file(tmp_path: Path) -> None:
    write_folders(tmp_path, [1], [2])
    shutil.copytree(tmp_path, tmp_path / "whole")
    samples, place = Nyuv2(tmp_path), tmp_path / "train"
    faults = (
        ("labels_40", lambda path: PIL.Image.fromarray(np.full(SIZE, 41, "u1")).save(path), "the label 41; allowed are"),
        ("labels_40", lambda path: PIL.Image.fromarray(kinds(1)).save(path), "has the label"),
        ("labels_40", lambda path: path.unlink(), "does not exist; NYU Depth v2 is"),
        ("depth", lambda path: PIL.Image.fromarray(metres(1)).save(path.with_suffix(".tif")) or path.unlink(), "not exist; NYU"),
        ("depth", lambda path: PIL.Image.fromarray(picture(1)).save(path), "has the mode RGB"),
        ("depth", lambda path: PIL.Image.fromarray(kinds(1)[1:]).save(path), "is 16 x 11 pixels"),
        ("rgb", lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be read"),
    )  # fmt: skip
    for folder, plant, message in faults:
        path = place / folder / "0001.png"
        plant(path)
        for use in (samples.check, samples.__getitem__):
            with pytest.raises(DataError, match=rf"{folder}.0001\.png.* {message}"):
                use(0)
        shutil.copy(tmp_path / "whole" / "train" / folder / "0001.png", path)
    samples.check(0)
