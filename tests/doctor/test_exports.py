"""What the doctor says of the files of annotation tools, of simulators, and of volumes that do not fit."""

import re
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from segue.data import create_dataset
from segue.data.samples import DataError
from segue.doctor import examine, quick_check
from segue.doctor.conversion import convert, find_meaning

SIZE = (24, 40)


def mask(number: int) -> NDArray[np.uint8]:
    found = np.zeros(SIZE, np.uint8)
    found[4:14, 3 + number : 20] = 1
    found[10:20, 22:36] = 2
    return found


def save(path: Path, array: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path)


def image(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def write(root: Path, encode: object, names: str) -> Path:
    root.mkdir()
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        for number in numbers:
            save(root / split / "images" / f"{number}.png", image(number))
            save(root / split / "masks" / f"{number}.png", encode(number))  # type: ignore[operator]
    (root / "segue.yaml").write_text(f"names: [{names}]\n")
    return root


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_class_number_in_one_channel_is_taken_as_it_is(channel: int, tmp_path: Path) -> None:
    """CARLA's; whichever of the classes is the most common."""
    names = [f"tag_{number}" for number in range(8)]
    for part, most in (("a", 0), ("b", 1)):

        def encode(number: int, most: int = most) -> NDArray[np.uint8]:
            colours = np.zeros((*SIZE, 3), np.uint8)
            colours[..., channel] = np.where(mask(number) == 0, most, mask(number)) * 3 + 1
            return colours

        root = write(tmp_path / part, encode, ", ".join(names))
        convert(root, tmp_path / f"{part}-new", find_meaning(examine("folder", str(root))))
        samples = create_dataset("folder", str(tmp_path / f"{part}-new"))
        assert samples.labels.names == tuple(names)
        assert np.array_equal(samples[0]["mask"], encode(0)[..., channel])


def test_black_and_one_dark_colour_are_not_numbers(tmp_path: Path) -> None:
    root = write(
        tmp_path / "d",
        lambda number: np.dstack([np.uint8(128) * (mask(number) == 1), *np.zeros((2, *SIZE), np.uint8)]),
        "ground, car",
    )
    assert "One channel" not in find_meaning(examine("folder", str(root))).words


def test_colours_are_numbered_alike_however_common_they_are(tmp_path: Path) -> None:
    colours = np.array([(9, 200, 3), (77, 0, 99), (1, 2, 250)], np.uint8)
    found = [
        [*find_meaning(examine("folder", str(write(tmp_path / name, encode, "a, b, c")))).numbers]
        for name, encode in (
            ("one", lambda number: colours[mask(number)]),
            ("other", lambda number: colours[(mask(number) + 1) % 3]),
        )
    ]
    assert found[0] == found[1]


def test_numbers_of_segments_are_no_classes(tmp_path: Path) -> None:
    def encode(number: int) -> NDArray[np.uint8]:
        ids = np.where(mask(number) > 0, 1000 + 2 * number + mask(number).astype(int), 0)
        return np.dstack([ids % 256, ids // 256 % 256, ids // 65536]).astype(np.uint8)

    root = write(tmp_path / "d", encode, "background, a, b")
    found = examine("folder", str(root))
    (fault,) = found.faults
    assert fault.name == "colours"
    assert "12 of 12 colours are in one mask alone" in fault.found
    assert "category_id" in fault.way_out
    with pytest.raises(DataError, match=r"nothing was converted.*number segments"):
        find_meaning(found)


def test_roboflow(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for number in range(3):
            save(tmp_path / split / f"f_{number}_jpg.rf.3f.jpg", image(number))
            save(tmp_path / split / f"f_{number}_jpg.rf.3f_mask.png", mask(number))
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n")
    with pytest.raises(DataError, match=r"as Roboflow exports them: put the images of train into train/images.*_classes\.csv"):
        examine("folder", str(tmp_path))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("task-{t}-annotation-{a}-by-1-tag-{c}-0", r"as Label Studio exports them.*\(bar, disc\)"),
        ("f{i}_{c}", "Each image has several masks, one a class: NAME_bar, NAME_disc"),
    ],
)
def test_a_mask_a_class(form: str, said: str, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "images" / f"f{i}.png", image(i))
        for number, c in ((1, "disc"), (2, "bar")):
            save(tmp_path / "masks" / f"{form.format(t=i + 1, a=i + 11, c=c, i=i)}.png", (mask(i) == number) * np.uint8(255))
    fault = next(fault for fault in examine("folder", str(tmp_path)).faults if fault.name == "no-partner")
    assert re.search(said, fault.found)
    assert fault.way_out.startswith("Merge those of each")


def test_volumes_that_do_not_fit_are_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "segue.yaml").write_text('names: [background, tumour]\nmodalities: {t1: "t1.nii"}\nlabel: "labels.nii"\n')
    for case in range(5):
        folder = tmp_path / f"p{case}"
        folder.mkdir()
        voxels = np.random.default_rng(case).normal(100, 10, (8, 8, 2)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 2, 1.0])), folder / "t1.nii")
        nibabel.save(nibabel.Nifti1Image((voxels > 100).astype(np.uint8), np.eye(4)), folder / "labels.nii")
    (fault,) = examine("volumes", str(tmp_path)).faults
    assert fault.name == "misplaced"
    assert "nothing to copy anew or to delete" in fault.way_out
    with pytest.raises(DataError, match=r"^misplaced: "):
        quick_check(*(create_dataset("volumes", str(tmp_path), split) for split in ("train", "val")))


def test_images_in_folders_are_read(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 3)):
        for number in range(count):
            place = "" if number == 0 else f"site{number % 2}/"
            save(tmp_path / split / "images" / f"{place}a{number // 3}.png", image(number))
            save(tmp_path / split / "masks" / f"{place}a{number // 3}.png", mask(number))
    (tmp_path / "segue.yaml").write_text("names: [ground, a, b]\n")
    samples = create_dataset("folder", str(tmp_path))
    places = [Path(samples.name(index)).relative_to(tmp_path / "train" / "images").as_posix() for index in range(len(samples))]
    assert places == ["a0.png", "site0/a0.png", "site0/a1.png", "site1/a0.png", "site1/a1.png"]
