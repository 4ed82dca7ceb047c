"""From samples to batches: the same draws whatever was interrupted, the same batches however many processes share them."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from segue.data.batches.loading import (
    EpochSampler,
    EvaluationSamples,
    TrainingSamples,
    evaluation_loader,
    to_tensors,
    training_loader,
)
from segue.data.batches.transforms import Augment
from segue.data.samples import DataError

# A loader's workers are forked, which newer Pythons warn of where other tests have left threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


class Drawn(Dataset[dict[str, Any]]):
    """Samples of noise, each with its own."""

    def __init__(self, length: int = 12) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng(index)
        return {"image": rng.integers(0, 256, (20, 24, 3), np.uint8), "mask": rng.integers(0, 5, (20, 24), np.uint8)}


AUGMENT = Augment((16, 16), scale=(0.5, 2), jitter=0.3)


def training(seed: int = 3) -> TrainingSamples:
    return TrainingSamples(Drawn(), AUGMENT, 5, seed)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in ("image", "mask", "index"))


class TestTrainingSamples:
    def test_gives_tensors(self) -> None:
        sample = training()[0, 4]
        assert sample["image"].shape == (3, 16, 16)
        assert sample["mask"].shape == (16, 16)
        assert sample["image"].dtype == sample["mask"].dtype == torch.uint8
        assert sample["index"] == 4

    def test_without_a_transform(self) -> None:
        sample = TrainingSamples(Drawn(), None, 5, seed=0)[0, 4]
        assert np.array_equal(sample["image"].permute(1, 2, 0), Drawn()[4]["image"])
        assert np.array_equal(sample["mask"], Drawn()[4]["mask"])

    def test_draws_follow_from_seed_epoch_and_index(self) -> None:
        first = training()[2, 5]
        for state in range(3):
            random.seed(state)
            np.random.seed(state)
            torch.manual_seed(state)
            assert same(first, training()[2, 5])
        assert not np.array_equal(first["image"], training()[3, 5]["image"])
        assert not np.array_equal(first["image"], training(seed=4)[2, 5]["image"])

    @pytest.mark.parametrize("fails", [False, True])
    def test_leaves_the_random_numbers_of_others_alone(self, fails: bool) -> None:
        def greedy(image: NDArray[Any], mask: NDArray[Any]) -> dict[str, NDArray[Any]]:
            random.random(), np.random.rand(), torch.rand(1)
            if fails:
                raise RuntimeError
            return {"image": image, "mask": mask}

        def following(use: bool) -> tuple[float, float, float]:
            random.seed(1)
            np.random.seed(1)
            torch.manual_seed(1)
            if use and fails:
                with pytest.raises(DataError, match="sample 0: the transform fails: RuntimeError"):
                    TrainingSamples(Drawn(), greedy, 5, 0)[0, 0]
            elif use:
                TrainingSamples(Drawn(), greedy, 5, 0)[0, 0]
            return random.random(), np.random.rand(), torch.rand(1).item()

        assert following(use=True) == following(use=False)

    def test_other_peoples_transforms_fit_and_are_seeded_too(self) -> None:
        def transform(image: NDArray[Any], mask: NDArray[Any]) -> dict[str, NDArray[Any]]:
            noise = [random.randrange(256), np.random.randint(256), int(torch.randint(256, (1,)))]
            return {"image": np.full_like(image, noise)[:, ::-1], "mask": mask[:, ::-1]}

        samples = TrainingSamples(Drawn(), transform, 5, seed=0)
        assert same(samples[1, 2], samples[1, 2])
        assert np.array_equal(samples[1, 2]["mask"], Drawn()[2]["mask"][:, ::-1])
        first, in_other_epoch, other = (samples[key]["image"][:, 0, 0] for key in ((1, 2), (2, 2), (1, 3)))
        assert (first != in_other_epoch).all()  # Python's, NumPy's and torch's numbers each
        assert (first != other).all()


class TestEpochSampler:
    @pytest.mark.parametrize("processes", [2, 3, 6])
    def test_batches_are_the_same_for_any_number_of_processes(self, processes: int) -> None:
        batch = 6
        alone = list(EpochSampler(45, batch, seed=1))
        shares = [list(EpochSampler(45, batch, 1, process, processes)) for process in range(processes)]
        part = batch // processes
        assert len(alone) == 42
        assert {len(share) for share in shares} == {len(alone) // processes}
        for start in range(0, 42, batch):
            mine = slice(start // processes, start // processes + part)
            assert sorted(key for share in shares for key in share[mine]) == sorted(alone[start : start + batch])

    def test_no_sample_comes_twice_in_an_epoch(self) -> None:
        sampler = EpochSampler(45, 6, seed=1)
        keys = list(sampler)
        assert len({index for _, index in keys}) == len(keys) == len(sampler) == 42

    def test_order_follows_from_seed_and_epoch(self) -> None:
        def order(seed: int, epoch: int) -> list[tuple[int, int]]:
            sampler = EpochSampler(45, 6, seed)
            sampler.set_epoch(epoch)
            return list(sampler)

        assert order(1, 2) == order(1, 2)
        assert {epoch for epoch, _ in order(1, 2)} == {2}
        orders = [[index for _, index in order(*numbers)] for numbers in ((1, 2), (1, 3), (2, 2))]
        assert orders[0] != orders[1] != orders[2] != orders[0]

    def test_every_sample_has_its_turn(self) -> None:
        sampler = EpochSampler(7, 5, seed=0)
        seen = set()
        for epoch in range(20):
            sampler.set_epoch(epoch)
            seen |= {index for _, index in sampler}
        assert seen == set(range(7))

    @pytest.mark.parametrize(("batch", "processes"), [(0, 1), (5, 2)])
    def test_batch_that_cannot_be_shared(self, batch: int, processes: int) -> None:
        with pytest.raises(ValueError, match=rf"batch_size \(={batch}\) must be a multiple of the {processes} devices"):
            EpochSampler(45, batch, 0, 0, processes)

    def test_too_few_samples(self) -> None:
        with pytest.raises(DataError, match=r"has 3 samples, fewer than batch_size \(=4\)"):
            EpochSampler(3, 4, seed=0)


@pytest.mark.parametrize("length", [1, 2, 7, 12])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_evaluation_covers_each_sample_once(length: int, processes: int) -> None:
    shares = [EvaluationSamples(Drawn(length), 5, process, processes) for process in range(processes)]
    seen = [share[i]["index"] for share in shares for i in range(len(share))]
    assert sorted(seen) == list(range(length))


class TestLoaders:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_training_batches_do_not_depend_on_workers(self, workers: int) -> None:
        loader = training_loader(training(), 5, workers)
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            batches = list(loader)
            assert [batch["image"].shape for batch in batches] == [(5, 3, 16, 16)] * 2
            for number, batch in enumerate(batches):
                keys = list(loader.sampler)[5 * number : 5 * number + 5]
                assert batch["index"].tolist() == [index for _, index in keys]
                for place, key in enumerate(keys):
                    assert same(training()[key], {name: batch[name][place] for name in batch})

    def test_processes_share_a_batch(self) -> None:
        alone = [batch["index"].tolist() for batch in training_loader(training(), 4, 0)]
        halves = [
            [batch["index"].tolist() for batch in training_loader(training(), 4, 0, process=process, processes=2)]
            for process in (0, 1)
        ]
        assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [sorted(batch) for batch in alone]

    def test_evaluation_is_in_order(self) -> None:
        batches = list(evaluation_loader(EvaluationSamples(Drawn(3), 5), 0))
        assert [batch["index"].item() for batch in batches] == [0, 1, 2]
        assert np.array_equal(batches[2]["image"][0].permute(1, 2, 0), Drawn()[2]["image"])


GOOD = Drawn()[0]


class One(Dataset[Any]):
    """A data set of one sample of which all that is known is its name."""

    def __init__(self, sample: Any) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        return self.sample

    def name(self, index: int) -> str:
        return f"street{index}.png"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ((GOOD["image"], GOOD["mask"]), "the sample is a tuple; it must be a dict with image and mask"),
        ({"image": GOOD["image"], "label": GOOD["mask"]}, "a dict of image, label; it must be a dict with image and mask"),
        ({**GOOD, "image": GOOD["image"][..., 0]}, r"image has the shape \(20, 24\) and the type uint8"),
        ({**GOOD, "image": GOOD["image"] / 255}, "image has .* the type float64"),
        ({**GOOD, "mask": GOOD["mask"][1:]}, r"mask has the shape \(19, 24\) .* must be \(20, 24\)"),
        ({**GOOD, "mask": GOOD["mask"] > 0}, "mask has .* the type bool"),
        ({**GOOD, "mask": GOOD["mask"] + np.uint8(1)}, "the label 5, but there are 5 classes, 0 to 4; .* 255, which is ignored"),
    ],
)
def test_errors_name_the_sample(sample: Any, message: str) -> None:
    uses = (
        lambda: TrainingSamples(One(sample), None, 5, seed=0)[0, 0],
        lambda: TrainingSamples(One(sample), Augment((20, 24)), 5, seed=0)[0, 0],
        lambda: EvaluationSamples(One(sample), 5)[0],
    )
    for use in uses:
        with pytest.raises(DataError, match=rf"street0\.png: .*{message}"):
            use()


def test_ignored_pixels_are_no_error() -> None:
    sample = {**GOOD, "mask": np.full((20, 24), 255, np.uint8)}
    assert to_tensors(sample, 0, 5, "void")["mask"].min() == 255


def test_a_transform_that_breaks_the_contract_is_found() -> None:
    def normalize(image: NDArray[Any], mask: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"image": image / np.float32(255), "mask": mask}

    with pytest.raises(DataError, match=r"sample 7: the transform makes the image float32 of uint8; .* mean and std"):
        TrainingSamples(Drawn(), normalize, 5, seed=0)[0, 7]


def test_read_only_grey_images_are_copied() -> None:
    """Drawn samples are kept and given again, so nobody may write to them; torch warns of tensors over such arrays."""
    image, mask = np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8)
    image.flags.writeable = mask.flags.writeable = False
    sample = EvaluationSamples([{"image": image, "mask": mask}], 2)[0]  # type: ignore[arg-type]
    sample["image"] += 1
    assert not image.any()
