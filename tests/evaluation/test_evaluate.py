import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

import segue.checkpoint
from helpers.commands import call, start_segue
from helpers.training import write_camvid
from segue import ConfusionMatrix, Labels, Predictor, create_dataset, create_model, evaluate, save_checkpoint
from segue.checkpoint import Card
from segue.data import DATASETS
from segue.data.camvid import CAMVID
from segue.data.samples import Samples
from segue.data.synthetic.cells import Cells
from segue.evaluation import Evaluation, create_scorers, evaluate_and_record, evaluate_images, run
from segue.evaluation.loop import SCORERS, predict_sample
from segue.metrics import ImageMatrices

LABELS = Labels.from_names(["dark", "light"])


class Noise(Samples):
    """Images of noise, whose light pixels are about the ones that `predictor` finds."""

    labels = LABELS

    def __init__(self, count: int, first: int = 0) -> None:
        self.numbers = range(first, first + count)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(self.numbers[index])
        image = random.integers(0, 256, (6, 8 + index, 1)).astype(np.uint8)
        mask = (image[..., 0] + random.normal(0, 40, image.shape[:2]) > 127).astype(np.uint8)
        mask[0, 0] = 255
        return {"image": image, "mask": mask}

    def name(self, index: int) -> str:
        return f"noise/{self.numbers[index]}.png"


def predictor() -> Predictor:
    return Predictor(lambda x: torch.cat([0.5 - x, x - 0.5], 1), LABELS, (0.0,), (1.0,))


class Counter:
    """A scorer that remembers what it saw."""

    title = "images seen"
    needs_confidence = False

    def __init__(self, samples: Samples) -> None:
        self.samples, self.seen = samples, []

    def update(self, index: int, sample: Any, prediction: Any, confidence: Any) -> None:
        self.seen.append(self.samples.name(index))

    def merge(self, other: Self) -> None:
        self.seen += other.seen

    def scores(self) -> dict[str, float]:
        return {"seen": len(self.seen), "nothing": float("nan")}

    def table(self) -> list[tuple[str, ...]]:
        return [("score", "images"), ("seen", str(len(self.seen)))]


def equal(a: ImageMatrices, b: ImageMatrices) -> bool:
    return sorted(a) == sorted(b) and all((a[image].counts == b[image].counts).all() for image in a)


@pytest.mark.parametrize(("images", "processes"), [(7, 2), (7, 3), (6, 3), (2, 5), (1, 1)])
def test_the_shares_of_all_processes_are_the_whole(images: int, processes: int) -> None:
    samples = Noise(images)
    whole = evaluate_images(predictor(), samples)
    together = ImageMatrices(LABELS.names)
    counter = Counter(samples)
    for number in range(processes):
        own = Counter(samples)
        together += evaluate_images(predictor(), samples, scorers=[own], share=(number, processes))
        counter.merge(own)
    assert equal(whole, together)
    assert (together.total.counts == evaluate(predictor(), samples).counts).all()
    assert sorted(counter.seen) == sorted(samples.name(index) for index in range(images))


def test_an_image_is_not_counted_twice() -> None:
    first, second = evaluate_images(predictor(), Noise(3)), evaluate_images(predictor(), Noise(3, first=2))
    with pytest.raises(ValueError, match=r"noise/2\.png would be counted twice"):
        first + second
    with pytest.raises(ValueError, match=r"noise/0\.png would be counted twice"):
        first.add("noise/0.png", np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="different classes"):
        first + ImageMatrices(["a", "b", "c"])


def test_matrices_are_kept_and_extended(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    evaluate_images(predictor(), Noise(3)).save(path)
    images = ImageMatrices.load(path)
    evaluate_images(predictor(), Noise(5), into=images)
    assert equal(images, evaluate_images(predictor(), Noise(5)))
    assert len(ImageMatrices.load(path)) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_a_scorer_that_would_miss_images_is_refused() -> None:
    images = evaluate_images(predictor(), Noise(3))
    with pytest.raises(ValueError, match=r"noise/0\.png is counted already, and images seen could not see it"):
        evaluate_images(predictor(), Noise(5), scorers=[Counter(Noise(5))], into=images)


def test_an_images_matrix_is_that_of_its_pixels() -> None:
    samples = Noise(4)
    images = evaluate_images(predictor(), samples)
    for index in range(4):
        matrix = ConfusionMatrix(LABELS.names)
        matrix.update(samples[index]["mask"], predictor()(samples[index]["image"]))
        assert (images[samples.name(index)].counts == matrix.counts).all()
        assert 0 < images[samples.name(index)].mean_iu < 1


def test_names_are_told_from_the_root_on(camvid: Path, tmp_path: Path) -> None:
    samples = create_dataset("camvid", str(camvid), "val")
    model = Predictor(create_model("enet", 11), CAMVID, (0.0,) * 3, (1.0,) * 3)
    assert sorted(evaluate_images(model, samples, root=camvid)) == [f"val/{number:03}.png" for number in range(5)]


def test_names_must_tell_images_apart() -> None:
    class Nameless(Noise):
        def name(self, index: int) -> str:
            return "an image"

    with pytest.raises(ValueError, match=r"1 names belong to several images \(an image\)"):
        evaluate(predictor(), Nameless(2))


def test_the_file_is_small_where_matrices_are_large(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = ImageMatrices([f"class {number}" for number in range(40)])
    for number in range(300):
        truth = random.choice(40, 12)[np.sort(random.integers(0, 12, 20_000))]  # twelve classes, each confused with some
        prediction = np.where(random.random(20_000) < 0.8, truth, random.choice(truth, 20_000))
        images.add(f"rooms/{number}.png", truth, prediction)
    images.save(tmp_path / "images.npz")
    assert (tmp_path / "images.npz").stat().st_size < 300 * 40 * 40 * 8 / 20
    assert equal(images, ImageMatrices.load(tmp_path / "images.npz"))


def test_no_images_are_kept_too(tmp_path: Path) -> None:
    ImageMatrices(["a"]).save(tmp_path / "images.npz")
    assert len(ImageMatrices.load(tmp_path / "images.npz")) == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"counts": np.array([1.5, 2.0])},
        {"counts": np.array([1, -2])},
        {"filled": np.array([0, 4], np.uint16)},
        {"ends": np.array([1])},
        {"ends": np.array([2, 1])},
        {"ends": np.array([-1, 2])},
        {"images": np.array(["a", "a"])},
        {"images": np.array(["a", {}], object)},
        {"images": np.array(["a"])},
    ],
    ids=str,
)
def test_what_holds_no_matrices_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    arrays = {"classes": ["x", "y"], "images": ["a", "b"], "ends": [1, 2], "filled": np.uint16([0, 3]), "counts": [5, 6]}
    np.savez(tmp_path / "images.npz", **arrays)
    assert ImageMatrices.load(tmp_path / "images.npz")["b"].counts.tolist() == [[0, 0], [0, 6]]
    np.savez(tmp_path / "images.npz", **{**arrays, **damage})
    with pytest.raises(ValueError, match=r"images\.npz holds no matrices of images"):
        ImageMatrices.load(tmp_path / "images.npz")


def test_a_file_cut_off_or_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    evaluate_images(predictor(), Noise(3)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"images\.npz holds no matrices"):
        ImageMatrices.load(path)
    evaluate_images(predictor(), Noise(3)).save(path)
    packed = path.read_bytes()
    method = packed.index(b"PK\x01\x02") + 10  # in the list of the archive: how its first file is compressed
    path.write_bytes(packed[:method] + b"\x63" + packed[method + 1 :])
    with pytest.raises(ValueError, match=r"images\.npz holds no matrices of images: NotImplementedError"):
        ImageMatrices.load(path)
    path.unlink()
    with pytest.raises(ValueError, match="segue evaluate writes it"):
        ImageMatrices.load(path)


# ---- the command, in one process and in several


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "enet"
    save_checkpoint(folder, create_model("enet", 11), Card("enet", CAMVID, short_side=40))
    return folder


def start_several(count: int, *args: object) -> list[subprocess.Popen[str]]:
    """As torchrun starts them, without its own time to start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start_segue(*args, RANK=str(number), LOCAL_RANK=str(number), **common) for number in range(count)]


@pytest.mark.slow
def test_two_processes_of_torchrun_score_as_one(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five images: three and two. What scorers have seen comes together as well."""
    args = ["evaluate", checkpoint, "camvid", "--root", camvid]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "segue"]
    several = subprocess.run(
        [*torchrun, *map(str, args), "--out", str(tmp_path / "two"), "--report", str(tmp_path / "page2")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert several.returncode == 0, several.stderr
    assert several.stdout.count("mean of the classes") == 1
    assert call(monkeypatch, *args, "--out", tmp_path / "one", "--report", tmp_path / "page1") == 0
    for name in ("images.npz", "sheet.jpg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("one", "two"))
    assert (one["images"], one["processes"], two["processes"]) == (5, 1, 2)
    assert one["confusion"] == two["confusion"]
    for title, scores in one["scorers"].items():
        assert two["scorers"][title] == pytest.approx(scores, nan_ok=True)
    assert one["scorers"]
    assert pictured_in(tmp_path / "page1") == pictured_in(tmp_path / "page2") == [f"{number:03}.png" for number in range(5)]


def pictured_in(page: Path) -> list[str]:
    """The images of a page of errors."""
    found = re.search(r'id="data">(.*?)</script>', (page / "index.html").read_text())
    assert found
    return sorted(image["name"] for image in json.loads(found[1])["images"])


@pytest.mark.slow
def test_more_processes_than_images(checkpoint: Path, tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid", val=1)
    processes = start_several(2, "evaluate", checkpoint, "camvid", "--root", root, "--out", tmp_path / "out")
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert [bool(out) for out, _ in told] == [True, False]
    assert list(ImageMatrices.load(tmp_path / "out" / "images.npz")) == ["val/000.png"]


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(checkpoint: Path, tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid")
    (root / "valannot" / "003.png").write_bytes((root / "valannot" / "003.png").read_bytes()[:60])
    processes = start_several(2, "evaluate", checkpoint, "camvid", "--root", root, "--out", tmp_path / "out")
    (_, first), (_, second) = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "valannot/003.png" in second
    assert "another process has stopped, and its own message says why\n" in first
    assert "Traceback" not in first + second
    assert not (tmp_path / "out" / "scores.json").exists()


def test_a_stopped_evaluation_goes_on(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["evaluate", checkpoint, "camvid", "--root", camvid, "--out", tmp_path / "out"]
    predict, predicted = predict_sample, []

    def stopped_at_the_third(*given: Any) -> Any:
        if len(predicted) == 2:
            raise KeyboardInterrupt
        predicted.append(given)
        return predict(*given)

    with monkeypatch.context() as patch:
        patch.setattr("segue.evaluation.loop.predict_sample", stopped_at_the_third)
        assert call(patch, *args) == 130
    assert "2 of 5 images are scored; the same command goes on from there" in capsys.readouterr().out
    assert not (tmp_path / "out" / "scores.json").exists()
    predicted.clear()

    def counted(*given: Any) -> Any:
        predicted.append(given)
        return predict(*given)

    with monkeypatch.context() as patch:
        patch.setattr("segue.evaluation.loop.predict_sample", counted)
        assert call(patch, *args) == 0
    assert len(predicted) == 3
    assert run.predict_sample is predict  # type: ignore[attr-defined]  # by which the two of before are pictured
    assert "going on after 2 images" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["resumed_after"] == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scores.json", "README.md", "sheet.jpg", "images.npz"}
    assert call(monkeypatch, *args[:-1], tmp_path / "whole") == 0
    assert (tmp_path / "out" / "images.npz").read_bytes() == (tmp_path / "whole" / "images.npz").read_bytes()


def test_what_is_kept_of_another_checkpoint_is_not_gone_on_with(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)  # each test begins with 0, and so did the one that drew the first checkpoint's weights
    save_checkpoint(tmp_path / "other", create_model("enet", 11), Card("enet", CAMVID, short_side=40))

    part = stopped_after_two(monkeypatch, checkpoint, camvid, tmp_path / "out")
    assert call(monkeypatch, "evaluate", tmp_path / "other", "camvid", "--root", camvid, "--out", tmp_path / "out") == 0
    assert "resumed_after" not in json.loads((tmp_path / "out" / "scores.json").read_text())
    assert list((tmp_path / "out").glob("*.part.npz")) == [part]  # the first one may still go on


def stopped_after_two(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, root: Path, out: Path) -> Path:
    """Where the two images are kept."""

    def bar(indices: Iterable[int]) -> Any:
        for count, index in enumerate(indices):
            if count == 2:
                raise KeyboardInterrupt
            yield index

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["segue.cli.evaluate"], "progress", lambda description: bar)
        assert call(patch, "evaluate", checkpoint, "camvid", "--root", root, "--out", out) == 130
    (part,) = out.glob("*.part.npz")
    return part


@pytest.mark.parametrize("change", ["mask", "image", "fewer"])
def test_changed_data_are_scored_anew(
    change: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_camvid(tmp_path / "camvid")
    stopped_after_two(monkeypatch, checkpoint, root, tmp_path / "out")
    if change == "fewer":
        for folder in ("val", "valannot"):
            (root / folder / "000.png").unlink()
    else:
        file = root / {"mask": "valannot", "image": "val"}[change] / "000.png"
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000_000))
    capsys.readouterr()
    assert call(monkeypatch, "evaluate", checkpoint, "camvid", "--root", root, "--out", tmp_path / "out") == 0
    assert "going on" not in capsys.readouterr().out
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["images"] == (4 if change == "fewer" else 5) == len(ImageMatrices.load(tmp_path / "out" / "images.npz"))


def test_what_is_kept_and_damaged_is_set_aside(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = stopped_after_two(monkeypatch, checkpoint, camvid, tmp_path / "out")
    part.write_bytes(part.read_bytes()[:100])
    assert call(monkeypatch, "evaluate", checkpoint, "camvid", "--root", camvid, "--out", tmp_path / "out") == 0
    assert re.search(r"part\.npz holds no matrices of images: .*; beginning anew\n", capsys.readouterr().out)
    assert len(ImageMatrices.load(tmp_path / "out" / "images.npz")) == 5
    assert not part.exists()


def test_what_is_counted_outlives_a_record_that_cannot_be_written(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*given: object) -> None:
        raise OSError("no space left on the disk")

    args = "evaluate", checkpoint, "camvid", "--root", camvid, "--out", tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_record", fails)
        assert call(patch, *args) == 2
    assert call(monkeypatch, *args) == 0
    assert "going on after 5 images" in capsys.readouterr().out


def test_a_data_sets_own_scores_are_printed_and_recorded(
    checkpoint: Path, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SCORERS, "camvid", f"{__name__}:Counter")
    assert call(monkeypatch, "evaluate", checkpoint, "camvid", "--root", camvid, "--out", tmp_path / "out") == 0
    assert "images seen" in capsys.readouterr().out
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["scorers"] == {"images seen": {"seen": 5, "nothing": None}}
    assert "## images seen\n\n| score | images |\n| --- | ---: |\n| seen | 5 |\n" in (tmp_path / "out" / "README.md").read_text()


def test_every_scorer_of_the_table_can_be_made() -> None:
    assert create_scorers("streets", create_dataset("streets", split="val")) == []
    (scorer,) = create_scorers("cells", create_dataset("cells", split="val"))
    assert scorer.title


# ---- the same from Python


def test_a_stopped_evaluation_goes_on_in_python(checkpoint: Path, camvid: Path, tmp_path: Path) -> None:
    def stopped_at_the_third(indices: Iterable[int]) -> Iterator[int]:
        for count, index in enumerate(indices):
            if count == 2:
                raise KeyboardInterrupt
            yield index

    out, told = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        evaluate_and_record(checkpoint, "camvid", camvid, out=out, progress=stopped_at_the_third, say=told.append)
    evaluation = evaluate_and_record(checkpoint, "camvid", camvid, out=out, say=told.append)
    assert told == ["2 of 5 images are scored; the same command goes on from there", "going on after 2 images"]
    whole = evaluate_and_record(checkpoint, "camvid", camvid, out=tmp_path / "whole")
    assert isinstance(evaluation, Evaluation)
    assert isinstance(whole, Evaluation)
    assert evaluation.title == "enet on camvid val, 5 images"
    assert equal(evaluation.images, whole.images)
    assert evaluation.matrix.scores() == pytest.approx(whole.matrix.scores(), nan_ok=True)
    assert evaluation.written == {"scores": out / "scores.json", "picture": out / "sheet.jpg"}
    assert (out / "sheet.jpg").read_bytes() == (tmp_path / "whole" / "sheet.jpg").read_bytes()
    assert {path.name for path in out.iterdir()} == {"scores.json", "README.md", "sheet.jpg", "images.npz"}


def test_label_maps_are_recorded_in_python(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(camvid / "valannot", tmp_path / "maps")
    evaluation = evaluate_and_record(tmp_path / "maps", "camvid", camvid)
    assert isinstance(evaluation, Evaluation)
    assert evaluation.matrix.mean_iu == 1
    assert evaluation.written["scores"] == tmp_path / "maps" / "report" / "camvid-val" / "scores.json"
    assert capsys.readouterr().out == ""


def test_each_image_is_predicted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For scores, contact sheet, picture of objects and page of errors together; and the checkpoint is looked for once."""
    save_checkpoint(
        tmp_path / "unet", create_model("unet", 2, 1, width=4), Card("unet", Cells.labels, 1, {"width": 4}, (0.5,), (0.5,))
    )
    monkeypatch.setitem(DATASETS, "cells", lambda split: Cells(split, count=9, size=(40, 56)))
    look, find, seen, searches = Predictor.look, run.find_checkpoint, [], []  # type: ignore[attr-defined]
    monkeypatch.setattr(Predictor, "look", lambda *given: seen.append(given) or look(*given))
    for module in (run, segue.checkpoint):
        monkeypatch.setattr(module, "find_checkpoint", lambda path: searches.append(path) or find(path))
    evaluation = evaluate_and_record(tmp_path / "unet", "cells", out=tmp_path / "out", report=tmp_path / "page")
    assert isinstance(evaluation, Evaluation)
    assert len(evaluation.images) == len(seen) == 9
    assert searches == [tmp_path / "unet"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"sheet.jpg", "objects.jpg"}
    assert evaluation.written["report"] == tmp_path / "page" / "index.html"


def test_anything_that_labels_images_is_scored_but_for_what_it_does_not_say() -> None:
    class Plain:
        labels, channels = LABELS, 1

        def __call__(self, image: Any, depth: Any = None) -> Any:
            return predictor()(image)

    class Sure(Counter):
        needs_confidence = True

    assert equal(evaluate_images(Plain(), Noise(3)), evaluate_images(predictor(), Noise(3)))
    with pytest.raises(ValueError, match="images seen asks how likely each pixel's class is, which Plain does not say"):
        evaluate_images(Plain(), Noise(3), scorers=[Sure(Noise(3))])
