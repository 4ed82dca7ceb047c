"""Samples that are not what a data set must give are named before a training starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from segue import Labels, Predictor, Recipe, train
from segue.data.contract import check_samples
from segue.data.samples import DataError, Samples
from segue.doctor import quick_check
from segue.models import create_model

SIZE = (64, 80)
LABELS = Labels.from_names(["a", "b"])
Sample = dict[str, Any]


def good(index: int = 0, size: tuple[int, int] = SIZE) -> Sample:
    random = np.random.default_rng(index)
    image, mask = random.integers(0, 255, (*size, 3), dtype=np.uint8), random.integers(0, 2, size, dtype=np.uint8)
    return {"image": image, "mask": mask, "depth": np.full(size, 2, np.float32)}


def first(image: NDArray[Any]) -> NDArray[Any]:
    return image.transpose(2, 0, 1).copy()


WRONG: dict[str, tuple[Callable[[Sample], Any], str]] = {
    "tuple": (lambda s: (s["image"], s["mask"]), "the sample is a tuple; it must be a dict with image and mask"),
    "keys": (lambda s: {"img": s["image"], "gt": s["mask"]}, "the sample is a dict of img, gt"),
    "PIL": (
        lambda s: {**s, "image": PIL.Image.fromarray(s["image"])},
        "the image is of the type Image; it must be a NumPy array",
    ),
    "grey": (lambda s: {**s, "image": s["image"][..., 0]}, r"the image has the shape \(64, 80\) and the type uint8"),
    "tensor": (lambda s: {**s, "image": torch.from_numpy(s["image"])}, "the image is of the type Tensor"),
    "channels first": (
        lambda s: {**s, "image": first(s["image"])},
        r"the image has the shape \(3, 64, 80\), its channels first.*\(H, W, C\)",
    ),
    "label": (lambda s: {**s, "mask": s["mask"] + np.uint8(5)}, "the mask has the label 6, but there are 2 classes"),
    "int64": (lambda s: {**s, "mask": s["mask"].astype(int)}, "the mask has the shape .* and the type int64"),
    "type": (lambda s: {**s, "image": s["image"].astype(np.uint16)}, "the image is uint16 with 3 channel.*but sample 0 is uint8"),
    "millimetres": (
        lambda s: {**s, "depth": (s["depth"] * 1000).astype(np.uint16)},
        "the depth has .* uint16; .* of float32, in metres",
    ),
    "float millimetres": (
        lambda s: {**s, "depth": s["depth"] * 1000},
        "the depth has a median of 2000, which looks like millimetres",
    ),
    "nan": (lambda s: {**s, "depth": np.where(s["mask"] == 1, np.nan, s["depth"])}, "the depth has .* nan or infinite"),
    "infinity": (lambda s: {**s, "depth": np.where(s["mask"] == 1, np.inf, s["depth"])}, "the depth has .* nan or infinite"),
    "small depth": (lambda s: {**s, "depth": s["depth"][::2, ::2]}, r"the depth has the shape \(32, 40\)"),
    "depth of a channel": (lambda s: {**s, "depth": s["depth"][..., None]}, r"the depth has the shape \(64, 80, 1\)"),
}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_sample_is_named(kind: str, split: str, tmp_path: Path) -> None:
    """Wherever it is, whichever split, before the first step."""
    change, message = WRONG[kind]
    fine, wrong = [good(i) for i in range(4)], [good(0), good(1), change(good(2))]
    recipe = Recipe(
        "enet", "mine", epochs=1, batch_size=2, learning_rate=1e-3, crop=(64, 64), workers=0, memory_format="channels_first",
        mean=(0.5,) * 4, std=(1.0,) * 4,
    )  # fmt: skip
    splits = {"train_data": wrong, "val_data": fine} if split == "train" else {"train_data": fine, "val_data": wrong}
    with pytest.raises(DataError, match=f"sample 2: {message}"):
        train(recipe, tmp_path / "run", labels=LABELS, **splits)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


class Broken(Samples):
    labels = LABELS

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise KeyError("nowhere")
        return good(index)

    def name(self, index: int) -> str:
        return f"photo {index}"


class Checked(Broken):
    def check(self, index: int) -> None:
        pass


def test_what_a_data_set_raises_has_the_name_of_the_sample() -> None:
    with pytest.raises(DataError, match="photo 1 cannot be read: KeyError: 'nowhere'"):
        check_samples(Broken(), "training")
    check_samples(Checked(), "training")  # which says itself that all is well


def test_data_without_a_length() -> None:
    with pytest.raises(DataError, match="the training split has no length"):
        check_samples(iter([good()]), "training")


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="one-class: the training data: There is one class alone"):
        quick_check([good()], [good()], labels=Labels.from_names(["disc"]))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            lambda image, mask: {"image": torch.from_numpy(first(image)), "mask": torch.from_numpy(mask)},
            r"sample \d: .*channels first",
        ),
        (lambda image, mask: {"image": image, "mask": mask}, r"samples \d and \d differ in the shape of their image"),
        (lambda image, mask: image.nothing, r"sample \d: the transform fails: AttributeError"),
        (lambda image, mask: {"image": image}, r"sample \d: the sample is a dict of image"),
        (lambda image, mask: (image, mask), r"sample \d: the sample is a tuple"),
    ],
)
def test_a_transform_that_does_not_fit(transform: Any, message: str, tmp_path: Path) -> None:
    recipe = Recipe(
        "enet", "mine", epochs=1, batch_size=2, learning_rate=1e-3, crop=(64, 64), workers=0, memory_format="channels_first"
    )
    data = [{key: good(i, size)[key] for key in ("image", "mask")} for i, size in enumerate([(64, 64), (80, 100)])]
    with pytest.raises(DataError, match=message):
        train(recipe, tmp_path / "run", train_data=data, val_data=data, labels=LABELS, transform=transform)  # type: ignore[arg-type]


def test_a_predictor_looks_at_its_depth() -> None:
    predictor = Predictor(create_model("enet", 2, 4), LABELS, (0,) * 4, (1,) * 4, uses_depth=True)
    for depth, message in (
        (np.full(SIZE, np.nan, np.float32), "depth has 5120 values that are nan"),
        (np.full(SIZE, 2000, np.uint16), "depth has the shape .* uint16"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor(good()["image"], depth)  # type: ignore[arg-type]
