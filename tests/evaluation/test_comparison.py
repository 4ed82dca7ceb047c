import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from helpers.commands import call as call_segue
from segue.evaluation.comparison import BETTER, WORSE, comparison_table, draw_comparison
from segue.metrics import ImageMatrices, compare

NAMES = ("road", "sky", "car")


def coin_tosses(shares: tuple[float, float], images: int, seed: int) -> tuple[ImageMatrices, ImageMatrices]:
    """Images of one pixel of class 0, which A and B take for class 0 with these probabilities, and else for class 1."""
    random = np.random.default_rng(seed)
    matrices = []
    for share in shares:
        one = ImageMatrices(NAMES[:2])
        wrong = random.random(images) >= share
        for image in range(images):
            one.add(f"{image}", [0], [int(wrong[image])])
        matrices.append(one)
    return matrices[0], matrices[1]


def scenes(errors: float, images: int = 40, seed: int = 1) -> ImageMatrices:
    """The same truths whatever the seed, of which so large a share is taken for another class."""
    truths, random = np.random.default_rng(0), np.random.default_rng(seed)
    matrices = ImageMatrices(NAMES)
    for image in range(images):
        truth = truths.integers(0, 3, 200)
        prediction = np.where(random.random(200) < errors, (truth + 1) % 3, truth)
        matrices.add(f"{image}.png", truth, prediction)
    return matrices


def test_the_interval_is_the_one_worked_out_by_hand() -> None:
    """Class 1 has the IU 0 and class 0 its accuracy, so mean IU is half the share of the images that are right, and the
    difference a mean of independent numbers: its interval is 1.96 standard errors to each side."""
    a, b = coin_tosses((0.6, 0.7), images=400, seed=0)
    comparison = compare(a, b)
    right_a, right_b = (np.array([one[str(image)].acc for image in range(400)]) for one in (a, b))
    halves = (right_b - right_a) / 2
    error = halves.std() / 20
    assert comparison.difference == pytest.approx(halves.mean())
    assert comparison.interval == pytest.approx((halves.mean() - 1.96 * error, halves.mean() + 1.96 * error), abs=0.1 * error)


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    """Of 200 drawings of 80 images, 190 are expected; 8 or more away from that is rarer than 1 in 100."""
    held = 0
    for seed in range(200):
        low, high = compare(*coin_tosses((0.5, 0.8), images=80, seed=seed), resamples=1000, seed=seed).interval
        held += low <= (0.8 - 0.5) / 2 <= high
    assert 182 <= held <= 198


def test_a_bare_difference_is_not_found_where_there_is_none() -> None:
    """Two equally good predictors: 5 % of the drawings are taken for a difference, not more."""
    found = sum(compare(*coin_tosses((0.7, 0.7), images=80, seed=seed), resamples=1000).is_real for seed in range(200))
    assert found <= 18


def test_identical_predictions_differ_by_nothing() -> None:
    comparison = compare(scenes(0.3), scenes(0.3))
    assert (comparison.difference, comparison.interval, comparison.better) == (0, (0, 0), 0)
    assert not comparison.is_real
    assert not comparison.class_intervals.any()


def test_the_better_one_is_found_and_turning_round_turns_the_sign() -> None:
    comparison, turned = compare(scenes(0.3), scenes(0.2, seed=2)), compare(scenes(0.2, seed=2), scenes(0.3))
    assert comparison.is_real
    assert comparison.difference > 0
    assert comparison.better == 1
    assert comparison.mean_iu == (scenes(0.3).total.mean_iu, scenes(0.2, seed=2).total.mean_iu)
    assert turned.difference == -comparison.difference
    assert turned.interval == pytest.approx((-comparison.interval[1], -comparison.interval[0]))
    np.testing.assert_allclose(turned.class_intervals, -comparison.class_intervals[:, ::-1])


def test_a_difference_on_few_images_is_never_real() -> None:
    assert not compare(scenes(0.9, images=5), scenes(0.1, images=5)).is_real
    assert compare(scenes(0.9, images=6), scenes(0.1, images=6)).is_real


def test_a_class_that_a_resample_lacks_is_left_out_in_both() -> None:
    """The car is on one of eight images, where A finds it and B does not. In resamples without it A and B are alike."""
    a, b = ImageMatrices(NAMES), ImageMatrices(NAMES)
    for image in range(8):
        truth = [0, 1, 2 if image == 0 else 1]
        a.add(f"{image}", truth, truth)
        b.add(f"{image}", truth, [0, 1, 1])
    comparison = compare(a, b)
    assert comparison.mean_iu == pytest.approx((1, (1 + 15 / 16 + 0) / 3))
    assert comparison.class_intervals[2].tolist() == [-1, -1]
    assert comparison.interval[1] == 0
    assert comparison.better == 0


def test_a_class_that_one_invents_counts_against_it_as_in_its_own_scores() -> None:
    a, b = ImageMatrices(NAMES), ImageMatrices(NAMES)
    for image in range(8):
        a.add(f"{image}", [0, 0, 1, 1], [0, 0, 1, 1])
        b.add(f"{image}", [0, 0, 1, 1], [0, 2, 1, 1])
    comparison = compare(a, b)
    assert np.isnan(comparison.iu[0][2])
    assert comparison.iu[1].tolist() == [0.5, 1, 0]
    assert comparison.mean_iu == (a.total.mean_iu, b.total.mean_iu) == (1, 0.5)
    assert comparison.interval == (-0.5, -0.5)  # type: ignore[unreachable]  # every image is alike
    assert comparison_table(comparison)[3] == ("car", "-", "0.0", "-", "-")


def test_what_cannot_be_compared_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 images are missing in B \(39\.png\); score both"):
        compare(scenes(0.1), scenes(0.1, images=39))
    with pytest.raises(ValueError, match=r"2 images are missing in A \(38\.png, 39\.png\)"):
        compare(scenes(0.1, images=38), scenes(0.1))
    with pytest.raises(ValueError, match="different classes"):
        compare(scenes(0.1), ImageMatrices(["a"]))
    with pytest.raises(ValueError, match="no images"):
        compare(ImageMatrices(["a"]), ImageMatrices(["a"]))
    other = ImageMatrices(NAMES)
    for image in range(40):
        other.add(f"{image}.png", [0] * 200, [0] * 200)
    with pytest.raises(ValueError, match=r"the truth of 0\.png differs"):
        compare(scenes(0.1), other)


def test_the_picture_shows_which_is_better() -> None:
    better = draw_comparison(compare(scenes(0.3), scenes(0.1)), "A and B")
    worse = draw_comparison(compare(scenes(0.1), scenes(0.3)), "A and B")
    for picture, shown, other in ((better, BETTER, WORSE), (worse, WORSE, BETTER)):
        pixels = [(abs(picture.astype(int) - color) < 20).all(axis=2).sum() for color in (shown, other)]
        assert pixels[0] > 5 * pixels[1] > 0  # the other one is in the legend
    many = ImageMatrices([f"a class with a rather long name {number}" for number in range(60)])
    many.add("one", list(range(59)), list(range(59)))
    assert draw_comparison(compare(many, many), "t" * 300).shape[1] == better.shape[1]


# ---- the command


def write_record(folder: Path, matrices: ImageMatrices | None, data: str = "camvid", split: str = "test") -> Path:
    folder.mkdir(parents=True)
    fields = {"data": data, "split": split, "command": f"segue evaluate 'my runs/x' {data} --root R --split {split}"}
    (folder / "scores.json").write_text(json.dumps(fields))
    if matrices:
        matrices.save(folder / "images.npz")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setenv("COLUMNS", "200")
    return call_segue(monkeypatch, "compare", *args)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    write_record(tmp_path / "a/report/camvid-test", scenes(0.3))
    write_record(tmp_path / "a/report/camvid-val", scenes(0.3), split="val")
    write_record(tmp_path / "b/report/camvid-test", scenes(0.2, seed=2))
    return tmp_path / "a", tmp_path / "b"


def test_runs_are_compared_where_both_were_scored(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = runs
    assert call(monkeypatch, a, b) == 0
    out = capsys.readouterr().out
    assert f"B ({b}) is better than A ({a}): mean IU +" in out
    assert "camvid test, 40 images" in out
    with PIL.Image.open(b / "report/camvid-test/comparison.png") as picture:
        assert picture.width > 900
    assert call(monkeypatch, b, a / "report/camvid-test", "--out", tmp_path / "picture.png") == 0
    assert "is worse than A" in capsys.readouterr().out
    assert (tmp_path / "picture.png").exists()
    same = write_record(tmp_path / "same/report/camvid-test", scenes(0.3))
    assert call(monkeypatch, a / "report/camvid-test", same) == 0
    assert "No difference can be shown: the interval holds 0" in capsys.readouterr().out


def test_records_in_common_are_named_or_chosen(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    write_record(b / "report/camvid-val", scenes(0.3, seed=3), split="val")
    assert call(monkeypatch, a, b) == 2
    assert "both were scored on camvid test, camvid val; say on which" in capsys.readouterr().err
    assert call(monkeypatch, a, b, "--split", "val") == 0
    assert call(monkeypatch, a, b, "--data", "voc") == 2
    err = capsys.readouterr().err
    assert "no record of voc in common: A was scored on camvid test, camvid val, B on" in err


@pytest.mark.parametrize("args", [[], ["--split", "test"]])
def test_a_path_without_records_is_named(
    args: list[str], runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert call(monkeypatch, runs[0], tmp_path / "empty", *args) == 2
    assert "empty has no record of scores; make one: segue evaluate" in capsys.readouterr().err
    assert call(monkeypatch, runs[0], tmp_path / "nowhere", *args) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_what_cannot_end_well_is_refused_before_the_work(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = runs
    assert call(monkeypatch, a, tmp_path / "b/../a", "--split", "test") == 2
    assert "A and B are both" in capsys.readouterr().err
    for out, message in ((tmp_path, "is a folder; --out names the file"), (tmp_path / "picture", "is no name of a picture")):
        assert call(monkeypatch, a, b, "--out", out) == 2
        told = capsys.readouterr()
        assert message in told.err
        assert told.out == ""
    assert call(monkeypatch, a, b, "--out", tmp_path / "new/folder/picture.png") == 0
    assert (tmp_path / "new/folder/picture.png").exists()


def test_a_record_of_an_older_segue_gives_the_command_that_makes_it_new(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = write_record(tmp_path / "old/report/camvid-test", None)
    assert call(monkeypatch, runs[0], tmp_path / "old") == 2
    assert "score again: segue evaluate 'my runs/x' camvid --root R --split test" in capsys.readouterr().err
    (old / "images.npz").write_bytes(b"PK")
    assert call(monkeypatch, runs[0], tmp_path / "old") == 2
    err = capsys.readouterr().err
    assert "images.npz holds no matrices of images" in err
    assert "score again: segue evaluate 'my runs/x' camvid --root R --split test" in err
    (old / "scores.json").write_text("[]")
    assert call(monkeypatch, runs[0], tmp_path / "old") == 2
    assert "is no record of scores" in capsys.readouterr().err
