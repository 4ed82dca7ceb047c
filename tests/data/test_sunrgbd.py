"""SUN RGB-D as distributed: a tiny archive in the true structure, whole and with faults planted in it."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.extras import needed
from helpers.pictures import save
from segue.data import create_dataset
from segue.data.samples import DataError
from segue.data.sunrgbd import SunRgbd, in_val
from segue.doctor import quick_check
from segue.evaluation import evaluate
from segue.evaluation.resume import files_of
from segue.inference import Predictor

h5py, savemat = needed("h5py"), needed("scipy.io").savemat

SIZE = (12, 16)
AUTHORS = "/n/fs/sun3d/data/SUNRGBD/"
META, SEG = "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat"
ALLSPLIT = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"
FOLDERS = ["kv2/kinect2data/a-resize", "kv1/NYUdata/NYU0001", "xtion/sun3ddata/hotel/b", "realsense/lg/c", "kv1/b3dodata/d"]
TRAIN, TEST = [3, 0, 1], [4, 2]  # numbers of FOLDERS, not in the order of SUNRGBDMeta


def picture(number: int) -> NDArray[np.uint8]:
    """Smooth, so that JPEG keeps it."""
    return np.full((*SIZE, 3), 40 * number + 20, np.uint8)


def depth(number: int) -> NDArray[np.uint16]:
    """In millimetres."""
    return np.random.default_rng(number).integers(0, 10_000, SIZE).astype(np.uint16)


def label(number: int) -> NDArray[np.uint8]:
    """0 is void, 1 to 37 are the classes."""
    return np.random.default_rng(number).integers(0, 38, SIZE).astype(np.uint8)


def cells(texts: list[str]) -> NDArray[np.object_]:
    array = np.empty((1, len(texts)), object)
    array[0, :] = texts
    return array


def write_meta(path: Path, folders: list[str], fields: str = "sequenceName rgbpath depthpath rgbname depthname") -> None:
    meta = np.zeros((1, len(folders)), [(field, object) for field in fields.split()])
    for i, folder in enumerate(folders):
        texts = {
            "sequenceName": f"SUNRGBD/{folder}", "rgbpath": f"{AUTHORS}{folder}/image/rgb{i}.jpg",
            "depthpath": f"{AUTHORS}{folder}/depth_bfx/d{i}.png", "rgbname": f"rgb{i}.jpg", "depthname": f"d{i}.png",
        }  # fmt: skip
        meta[0, i] = tuple(texts[field] for field in fields.split())
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"SUNRGBDMeta": meta})


def write_labels(path: Path, labels: list[NDArray]) -> None:
    """As MATLAB saves a struct array 1 x n: of each field n references to arrays, whose axes are the other way round."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for field in ("seglabel", "seglabelall"):
            references = file.create_dataset(f"SUNRGBD2Dseg/{field}", (len(labels), 1), h5py.ref_dtype)
            for i, array in enumerate(labels):
                stored = array if field == "seglabel" else np.full(SIZE, 999, np.uint16)
                references[i, 0] = file.create_dataset(f"#refs#/{field}{i}", data=stored.T).ref


def write_split(path: Path, train: list[str], test: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"alltrain": cells(train), "alltest": cells(test)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i, folder in enumerate(FOLDERS):
        place = tmp_path / "SUNRGBD" / folder
        save(place / "image" / f"rgb{i}.jpg", picture(i))
        save(place / "depth_bfx" / f"d{i}.png", (depth(i) << 3) | (depth(i) >> 13))
        save(place / "depth" / f"d{i}.png", np.zeros(SIZE, np.uint16))  # the raw one
    write_meta(tmp_path / META, FOLDERS)
    write_labels(tmp_path / SEG, [label(i) for i in range(len(FOLDERS))])
    write_split(tmp_path / ALLSPLIT, [AUTHORS + FOLDERS[i] for i in TRAIN], [AUTHORS + FOLDERS[i] for i in TEST])
    return tmp_path


@pytest.mark.parametrize(("split", "numbers"), [("train", [0, 1, 3]), ("trainval", [0, 1, 3]), ("test", [2, 4])])
def test_samples(split: str, numbers: list[int], root: Path) -> None:
    samples = create_dataset("sunrgbd", str(root), split)
    assert len(samples) == len(numbers)
    for index, number in enumerate(numbers):  # in the order of SUNRGBDMeta
        samples.check(index)
        sample = samples[index]
        assert Path(samples.name(index)) == root / "SUNRGBD" / FOLDERS[number] / "image" / f"rgb{number}.jpg"
        assert np.abs(sample["image"].astype(int) - picture(number)).max() <= 2
        assert np.array_equal(sample["mask"], np.where(label(number) == 0, 255, label(number).astype(int) - 1))
        assert sample["mask"].dtype == np.uint8
        assert np.array_equal(samples.mask(index), sample["mask"])
        assert sample["depth"].dtype == np.float32
        assert np.allclose(sample["depth"], depth(number) / 1000, atol=1e-6)


def test_paths_are_matched_below_the_folder_sunrgbd(root: Path) -> None:
    train = [f"/n/fs/sun3d/data//SUNRGBD/{FOLDERS[0]}/", f"/elsewhere/SUNRGBD//{FOLDERS[1]}"]
    write_split(root / ALLSPLIT, train, [])
    samples = SunRgbd(root, "trainval")
    assert [Path(samples.name(i)).name for i in range(len(samples))] == ["rgb0.jpg", "rgb1.jpg"]


def test_the_lists_of_esanet_give_the_same(root: Path) -> None:
    packed = {split: [SunRgbd(root, split)[i] for i in range(2)] for split in ("train", "test")}
    for part, numbers in (("train", [0, 1, 3]), ("test", [2, 4])):  # as its script sorts them
        for what, path in (("rgb", "image/rgb{}.jpg"), ("depth", "depth_bfx/d{}.png"), ("label", "label/label.npy")):
            lines = [f"SUNRGBD/{FOLDERS[i]}/{path.format(i)}" for i in numbers]
            (root / f"{part}_{what}.txt").write_text("\n".join(lines))
        for i in numbers:
            (root / "SUNRGBD" / FOLDERS[i] / "label").mkdir()
            np.save(root / "SUNRGBD" / FOLDERS[i] / "label" / "label.npy", label(i))
    (root / SEG).unlink()  # the lists are taken, the toolbox is not read
    for split, samples in packed.items():
        for i, sample in enumerate(samples):
            listed = SunRgbd(root, split)[i]
            assert sample.keys() == listed.keys()
            for key in sample:
                assert np.array_equal(sample[key], listed[key])


def test_splits(tmp_path: Path) -> None:
    folders = [f"kv1/NYUdata/NYU{i:04}" for i in range(550)]
    write_meta(tmp_path / META, folders, "rgbpath rgbname depthname")
    write_split(
        tmp_path / ALLSPLIT, [AUTHORS + folder for folder in folders[:49:-1]], [AUTHORS + folder for folder in folders[:50]]
    )
    with h5py.File(tmp_path / SEG, "w") as file:
        file.create_dataset("SUNRGBD2Dseg/seglabel", (550, 1), h5py.ref_dtype)
    (tmp_path / "SUNRGBD").mkdir()
    found = {split: SunRgbd(tmp_path, split) for split in SunRgbd.splits}
    names = {split: [Path(samples.name(i)).parts[-3] for i in range(len(samples))] for split, samples in found.items()}
    assert names["test"] == [f"NYU{i:04}" for i in range(50)]
    assert names["trainval"] == [f"NYU{i:04}" for i in range(50, 550)]
    assert names["val"] == [f"NYU{i:04}" for i in range(500, 550)]  # the tenth run of 50
    assert names["train"] == [f"NYU{i:04}" for i in range(50, 500)]
    assert sum(map(in_val, range(5285))) == 500


def test_too_few_for_validation(root: Path) -> None:
    with pytest.raises(DataError, match=r"allsplit\.mat has 3 lines, which leaves none for val"):
        SunRgbd(root, "val")


@pytest.mark.parametrize("module", ["h5py", "scipy.io"])
def test_without_a_reader(module: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match="pip install h5py scipy"):
        SunRgbd(root)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("name", "plant", "message"),
    [
        ("SUNRGBD", lambda path: path.rename(path.with_name("data")), r"SUNRGBD does not exist; SUN RGB-D is SUNRGBD\.zip"),
        (META, Path.unlink, r"SUNRGBDMeta\.mat does not exist; SUN RGB-D is SUNRGBD\.zip and SUNRGBDtoolbox\.zip.*--root"),
        (SEG, Path.unlink, r"SUNRGBD2Dseg\.mat does not exist; SUN RGB-D is"),
        (ALLSPLIT, Path.unlink, r"allsplit\.mat does not exist; SUN RGB-D is"),
        (META, cut, r"SUNRGBDMeta\.mat cannot be read"),
        (SEG, cut, r"SUNRGBD2Dseg\.mat cannot be read"),
        (ALLSPLIT, cut, r"allsplit\.mat cannot be read"),
        (META, lambda path: savemat(path, {"Meta": 1}), r"SUNRGBDMeta\.mat cannot be read: KeyError"),
        (META, lambda path: write_meta(path, FOLDERS, "rgbpath rgbname"), r"lacks rgbpath, rgbname or depthname"),
        (META, lambda path: write_meta(path, FOLDERS[:4]), r"labels of the shape \(5, 1\), but .* has 4 images"),
        (META, lambda path: write_meta(path, [*FOLDERS[:3], "kv1/e", "kv1/f"]),
         r"allsplit\.mat names /n/fs/sun3d/data/SUNRGBD/realsense/lg/c, which is not in"),
        (META, lambda path: write_meta(path, [*FOLDERS[2:], "kv1/e", "kv1/f"]), r"kv1/NYUdata/NYU0001 \(and 1 more\), which"),
        (ALLSPLIT, lambda path: savemat(path, {"alltrain": np.ones((1, 3))}), r"allsplit\.mat names 1\.0, which is not"),
        (ALLSPLIT, lambda path: savemat(path, {"alltrain": cells(["", "b"])}), r"allsplit\.mat .* must hold texts"),
    ],
)  # fmt: skip
def test_what_is_missing_or_damaged(name: str, plant: Callable[[Path], object], message: str, root: Path) -> None:
    SunRgbd(root)
    plant(root / name)
    with pytest.raises(DataError, match=message):
        SunRgbd(root)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (label(0)[1:], r"rgb0\.jpg is 16 x 12 pixels .* mask .*SUNRGBD2Dseg\.mat.seglabel.1 is 16 x 11"),
        (np.full(SIZE, 38, np.uint8), r"SUNRGBD2Dseg\.mat.seglabel.1 has the label 38; allowed are 0 to 37"),
        (np.full(SIZE, 256, np.uint16), r"seglabel.1 must hold the labels 0 to 37"),
        (np.zeros(2, np.uint64), r"seglabel.1 must hold the labels 0 to 37"),  # as MATLAB saves an empty array
    ],
)
def test_a_label_that_does_not_fit(bad: NDArray, message: str, root: Path) -> None:
    write_labels(root / SEG, [bad, *(label(i) for i in range(1, 5))])
    samples = SunRgbd(root)
    for use in (samples.check, samples.__getitem__):
        with pytest.raises(DataError, match=message):
            use(0)
    samples.check(1)


def test_a_label_that_is_not_there(root: Path) -> None:
    with h5py.File(root / SEG, "a") as file:
        del file["SUNRGBD2Dseg/seglabel"]
        file.create_dataset("SUNRGBD2Dseg/seglabel", (5, 1), h5py.ref_dtype)
    samples = SunRgbd(root)
    with pytest.raises(DataError, match=r"SUNRGBD2Dseg\.mat.seglabel.1 cannot be read"):
        samples.check(0)


@pytest.mark.parametrize(
    ("name", "plant", "message"),
    [
        ("image/rgb0.jpg", Path.unlink, r"rgb0\.jpg does not exist"),
        ("depth_bfx/d0.png", Path.unlink, r"depth_bfx.d0\.png does not exist"),
        ("depth_bfx/d0.png", lambda path: save(path, depth(0)[1:]), r"d0\.png is 16 x 11 pixels .*seglabel.1 is 16 x 12"),
        ("depth_bfx/d0.png", lambda path: save(path, picture(0)), r"d0\.png has the mode RGB"),
    ],
)
def test_files_that_do_not_fit(name: str, plant: Callable[[Path], object], message: str, root: Path) -> None:
    samples = SunRgbd(root)
    plant(root / "SUNRGBD" / FOLDERS[0] / name)
    for use in (samples.check, copy.copy(samples).__getitem__):
        with pytest.raises(DataError, match=message):
            use(0)


def test_it_is_checked_before_a_training_and_scored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label is part of a file that holds them all, so its name is no path."""
    samples = SunRgbd(root, "test")
    quick_check(samples, samples)
    assert capsys.readouterr().out == ""
    assert files_of(samples) == files_of(SunRgbd(root, "test"))
    predictor = Predictor(lambda x: torch.zeros(1, 37, *x.shape[2:]), samples.labels, (0.0,) * 3, (1.0,) * 3)
    assert evaluate(predictor, samples).counts.any()
