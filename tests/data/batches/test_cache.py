"""Decoded samples in memory: the same samples, once for all processes, and only where they fit."""

import multiprocessing
import os
from collections.abc import ItemsView, ValuesView
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset

from helpers.training import tiny_recipe
from segue import train
from segue.data.batches.cache import Cached, Estimate, cached, estimate
from segue.data.batches.loading import TrainingSamples, collate
from segue.data.batches.transforms import Augment
from segue.data.camvid import CamVid
from segue.data.samples import DataError, Sample, Samples
from segue.data.synthetic.streets import Streets
from segue.labels import Labels
from segue.machine.memory import control_groups, free_memory

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


class Counted(Samples):
    """Samples of several sizes and types, that tell how often they were read."""

    labels = Labels.from_names(["a", "b"])

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        (self.folder / f"{index}-{len(list(self.folder.iterdir()))}-{os.getpid()}").touch()
        rng, size = np.random.default_rng(index), (20 + index, 24)
        image: NDArray[Any] = rng.integers(0, 2**16, (*size, 5)).astype(np.uint16)
        return {
            "image": image,
            "mask": rng.integers(0, 2, size).astype(np.uint8),
            "depth": rng.random(size).astype(np.float32)[:, ::-1],
        }

    def name(self, index: int) -> str:
        return f"counted {index}"

    @property
    def reads(self) -> int:
        return len(list(self.folder.iterdir()))


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in a)


def test_samples_are_read_once_and_are_the_same(tmp_path: Path) -> None:
    plain, kept = Counted(tmp_path), cached(Counted(tmp_path), "memory")
    assert isinstance(kept, Cached)
    for _ in range(2):
        assert all(same(kept[index], plain[index]) for index in range(6))
    before = plain.reads
    kept[3]["image"][:] = 0  # one's own copy
    assert kept[3]["image"].any()
    assert plain.reads == before
    assert kept.name(2) == "counted 2"
    assert kept.labels == plain.labels


def test_a_sample_that_is_too_large_is_read_each_time(tmp_path: Path) -> None:
    kept = Cached(Counted(tmp_path), 1)
    large = np.zeros((200, 200), np.uint8)
    kept.samples = [{"image": large[..., None], "mask": large}] * 6  # type: ignore[assignment]
    assert same(kept[0], kept[0])
    assert not kept.memory.bytes[:6].any()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_share_what_any_of_them_has_read(tmp_path: Path, method: str, workers: int) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    samples = Counted(tmp_path)
    kept = cached(samples, "memory")
    training = TrainingSamples(kept, Augment((16, 16)), 2, 0)
    keys = [(0, index) for index in range(6)]
    expected = torch.stack([TrainingSamples(samples, Augment((16, 16)), 2, 0)[key]["image"] for key in keys])
    before = samples.reads
    loader: Any = DataLoader(training, 3, sampler=keys, num_workers=workers, collate_fn=collate, multiprocessing_context=method)
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), expected)
    assert samples.reads - before == 6
    assert torch.equal(torch.stack([training[key]["image"] for key in keys]), expected)  # here, from what they have read
    assert samples.reads - before == 6


def test_only_what_is_sure_to_repeat_and_fits_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
            return Streets("train", 3, (32, 32))[index]

    samples, own = Streets("train", 3, (32, 32)), Own()
    assert isinstance(cached(samples, "auto"), Cached)
    assert cached(samples, "none") is samples
    assert cached(own, "auto") is own
    assert isinstance(cached(own, "memory"), Cached)
    size = estimate(samples).size
    assert size == 3 * sum(array.nbytes for array in samples[0].values())
    for free, processes, fits in ((2 * size, 1, True), (2 * size - 2, 1, False), (2 * size, 2, False), (4 * size, 2, True)):
        monkeypatch.setattr("segue.data.batches.cache.free_memory", lambda free=free: free)
        assert Estimate(size, free, processes).fits == fits
        assert isinstance(cached(samples, "auto", processes), Cached) == fits


def test_what_cannot_fit_is_refused_before_there_is_a_run(camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Streets("train", 3, (32, 32))
    free = 2 * estimate(samples).size - 1
    monkeypatch.setattr("segue.data.batches.cache.free_memory", lambda: free)
    assert isinstance(cached(samples, "memory"), Cached)
    with pytest.raises(DataError, match=r"cache .* needs .* of 2 devices, .* GB are free; take"):
        cached(samples, "memory", processes=2)
    with pytest.raises(DataError, match=r"cache .* needs .* GB are free; take"):
        train(tiny_recipe(camvid, cache="memory"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_samples_are_left_as_they_are() -> None:
    class Empty(Samples):
        def __len__(self) -> int:
            return 0

    empty = Empty()
    assert cached(empty, "memory") is cached(empty, "auto") is empty
    assert estimate(empty).size == 0


def test_drawn_samples_are_not_kept_twice() -> None:
    samples = Streets("train", 3, (32, 32))
    kept = Cached(samples, 2**16)
    expected = [Streets("train", 3, (32, 32))[index] for index in range(3)]
    assert all(same(kept[index], expected[index]) for index in range(3))
    assert not samples.drawn


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("this system does not list open files")
    kept = cached(Counted(tmp_path), "memory")
    assert isinstance(kept, Cached)
    kept[0]
    during = len(list(folder.iterdir()))
    del kept
    assert len(list(folder.iterdir())) < during


def test_training_is_the_same_with_the_cache_and_without(camvid: Path, tmp_path: Path) -> None:
    """To the bit, on one machine: neither where samples come from nor who loads them enters the arithmetic."""
    runs = [
        train(tiny_recipe(camvid, cache=cache, workers=workers), tmp_path / f"{cache}{workers}")
        for cache, workers in (("none", 0), ("memory", 2), ("auto", 0))
    ]
    first, *others = (load_file(run / "last" / "model.safetensors") for run in runs)
    for other in others:
        assert all(torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_names_in_errors_are_those_of_the_files(camvid: Path) -> None:
    kept = cached(CamVid(camvid, "train"), "memory")
    with pytest.raises(ValueError, match=r"train/000\.png: the mask has the label"):
        TrainingSamples(kept, None, 2, 0)[0, 0]


class TestFreeMemory:
    def write(self, folder: Path, **files: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    def test_is_some(self) -> None:
        assert 0 < free_memory() < 2**50

    def test_the_limits_of_all_groups_above_count(self, tmp_path: Path) -> None:
        root, own = tmp_path / "cgroup", tmp_path / "own"
        own.write_text("0::/service/job\n")
        self.write(root / "service", memory__max=1000, memory__current=300, memory__stat="anon 250\ninactive_file 50")
        self.write(root / "service" / "job", memory__max="max", memory__current=200, memory__stat="inactive_file 10")
        assert control_groups(root, own) == [750]

    def test_version_1(self, tmp_path: Path) -> None:
        root, own = tmp_path / "cgroup", tmp_path / "own"
        own.write_text("4:cpu:/\n3:memory:/docker\n")
        files = {"memory__limit_in_bytes": 1000, "memory__usage_in_bytes": 600, "memory__stat": "total_inactive_file 100"}
        self.write(root / "memory" / "docker", **files)
        assert control_groups(root, own) == [500]

    def test_no_groups(self, tmp_path: Path) -> None:
        assert control_groups(tmp_path, tmp_path / "nowhere") == []


def test_samples_are_marked_when_they_are_whole() -> None:
    """Who reads a sample of the cache while another writes it gets the whole sample, at any moment."""
    whole: Sample = {"image": np.full((5, 7, 3), 200, np.uint8), "mask": np.ones((5, 7), np.uint8)}

    class Watched(Samples):
        labels = Labels.from_names(["a", "b"])
        kept: Cached | None = None

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Slow(whole, self)

    class Slow(dict[str, Any]):
        """Its arrays are asked for while it is written; each time another reads the same sample."""

        def __init__(self, sample: Sample, samples: Watched) -> None:
            super().__init__(sample)
            self.samples = samples

        def read_by_another(self) -> None:
            kept, self.samples.kept = self.samples.kept, None
            if kept is not None:
                seen.append(kept[0])
                self.samples.kept = kept

        def values(self) -> ValuesView[Any]:  # type: ignore[override]
            self.read_by_another()
            return super().values()

        def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
            self.read_by_another()
            return super().items()

    seen: list[Sample] = []
    samples = Watched()
    samples.kept = Cached(samples, 4096)
    for sample in (samples.kept[0], *seen, samples.kept[0]):
        assert all(np.array_equal(sample[name], whole[name]) for name in whole)
    assert seen
