"""The page of errors: what is gathered for it, and the page itself in a real browser."""

import json
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.extras import needed
from helpers.training import write_camvid
from segue.checkpoint import Card
from segue.cli.evaluate import evaluate
from segue.data.samples import Sample, Samples
from segue.evaluation.error_page import errors
from segue.evaluation.error_page.errors import ErrorReport, void_color
from segue.evaluation.error_page.page import check_page, short_names, write_page
from segue.labels import IGNORE, Labels

HOSTILE = "</script><script>document.title='taken over'</script><b>"
LABELS = Labels(("road", "pavement", HOSTILE, "{{pictures}}"), ((128, 64, 128), (244, 35, 232), (0, 0, 142), (70, 70, 70)))
TOLD = {
    "data": "streets",
    "split": "test",
    "command": "segue evaluate x",
    "seconds": 1.5,
    "hardware": "a <laptop>",
    "versions": {},
}
CARD = Card("enet", LABELS)


class Scenes(Samples):
    """Scenes of 48 x 64 pixels: road over pavement, beside them a square of the third class; void on top."""

    labels = LABELS

    def __init__(self, count: int, channels: int = 3) -> None:
        self.count, self.channels = count, channels

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        mask = np.zeros((48, 64), np.uint8)
        mask[24:] = 1
        mask[10:20, 40:50] = 2
        mask[:4] = IGNORE
        image = np.random.default_rng(index).integers(60, 200, (6, 8, self.channels), np.uint8).repeat(8, 0).repeat(8, 1)
        return {"image": image, "mask": mask}

    def name(self, index: int) -> str:
        return f"/data/scenes/<i>{index % 2}</i>/scene_{index:03}.png"


def predicted(sample: Sample, wrong: int) -> tuple[Any, Any]:
    """The truth with so many columns of pavement taken for road, and how sure the network is of it."""
    prediction = np.where(sample["mask"] == IGNORE, 0, sample["mask"])
    prediction[24:, :wrong] = 0
    return prediction, np.full(prediction.shape, 0.9, np.float32)


def gathered(samples: Scenes, wrong: Callable[[int], int], indices: range | None = None) -> ErrorReport:
    report = ErrorReport(samples)
    for index in indices or range(len(samples)):
        sample = samples[index]
        report.update(index, sample, *predicted(sample, wrong(index)))
    return report


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text())
    assert found
    return json.loads(found[1])


def test_the_scores_are_of_all_images() -> None:
    report = gathered(Scenes(2), lambda index: 16 * index)
    scores = report.scores()
    assert scores.keys() == {"boundary_mean_iu", "interior_mean_iu", "bf", "ece"}
    right = 1 - 16 * 24 / (2 * 44 * 64)
    assert scores["ece"] == pytest.approx(abs(right - 0.9), abs=1e-6)
    assert [row[0] for row in report.table()[1:]] == [
        "mean IU near boundaries", "mean IU away from them", "boundary F1", "calibration error (ECE)",
    ]  # fmt: skip


def test_parts_merge_to_the_page_of_the_whole(tmp_path: Path) -> None:
    samples = Scenes(7)
    whole = gathered(samples, lambda index: 5 * index)
    first = gathered(samples, lambda index: 5 * index, range(0, 7, 2))
    second = gathered(samples, lambda index: 5 * index, range(1, 7, 2))
    second.merge(pickle.loads(pickle.dumps(first)))
    pages = [write_page(tmp_path / name, report, report.matrix, CARD, TOLD) for name, report in (("a", whole), ("b", second))]
    assert data_of(pages[0]) == data_of(pages[1])


def test_pictures_are_kept_of_the_worst_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(errors, "PICTURED", 3)
    report = gathered(Scenes(8), lambda index: (index * 3) % 8 * 4)
    told = data_of(write_page(tmp_path, report, report.matrix, CARD, TOLD))
    assert [image["name"][-7:] for image in told["images"]] == ["005.png", "002.png", "007.png"]
    assert told["count"] == 8


def test_the_largest_regions_of_a_pair_are_kept() -> None:
    report = gathered(Scenes(9), lambda index: 2 + index)
    assert list(report.crops) == [(1, 0)]
    assert [crop.index for crop in report.crops[1, 0]] == [8, 7, 6, 5, 4, 3]
    assert report.crops[1, 0][0].pixels == 10 * 24


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_of_other_channels_are_pictured(channels: int) -> None:
    assert gathered(Scenes(1, channels), lambda index: 3).images[0].pictures


def test_images_without_truth_or_without_errors_make_a_page(tmp_path: Path) -> None:
    samples = Scenes(1)
    sample = samples[0]
    report = ErrorReport(samples)
    report.update(0, {**sample, "mask": np.full_like(sample["mask"], IGNORE)}, *predicted(sample, 0))
    (image,) = data_of(write_page(tmp_path, report, report.matrix, CARD, TOLD))["images"]
    assert image["mean_iu"] is None
    assert len(image["pictures"]) == 4


def test_names_lose_the_folders_that_all_share() -> None:
    assert short_names(["/data/test/a.png", "/data/test/b.png"]) == ["a.png", "b.png"]
    assert short_names(["/data/x/a.png", "/data/y/a.png"]) == [str(Path("x/a.png")), str(Path("y/a.png"))]
    assert short_names(["sample 0", "sample 1"]) == ["sample 0", "sample 1"]
    assert short_names(["/data/a.png"]) == ["a.png"]
    assert short_names([]) == []


def test_the_file_names_nothing_outside_itself(tmp_path: Path) -> None:
    report = gathered(Scenes(2), lambda index: 9)
    page = write_page(tmp_path, report, report.matrix, CARD, TOLD).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert HOSTILE not in page


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "camvid", test=2)
    folders = "--root", str(root), "--out", str(tmp_path / "out"), "--report", str(tmp_path / "errors")
    evaluate(["enet-camvid", "camvid", "--split", "test", *folders])
    told = data_of(tmp_path / "errors" / "index.html")
    assert told["title"] == "enet on camvid test"
    assert {image["name"] for image in told["images"]} == {"000.png", "001.png"}


def test_a_page_that_is_no_report_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said before anything is scored; a report of before is replaced."""
    check_page(tmp_path / "new")
    report = gathered(Scenes(1), lambda index: 3)
    check_page(write_page(tmp_path / "page", report, report.matrix, CARD, TOLD).parent)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<title>my site</title>")
    root = write_camvid(tmp_path / "camvid", val=1)
    monkeypatch.setattr("segue.evaluation.loop.predict_sample", None)
    for folder, message in ((tmp_path / "site", "is no report of segue"), (tmp_path / "site/index.html", "is a file")):
        with pytest.raises(ValueError, match=f"{message}.*; choose another --report"):
            evaluate(["enet-camvid", "camvid", "--root", str(root), "--out", str(tmp_path / "out"), "--report", str(folder)])
    assert (tmp_path / "site" / "index.html").read_text() == "<title>my site</title>"


def test_void_has_a_colour_that_no_class_has() -> None:
    assert void_color(LABELS.palette) == (0, 0, 0)
    palette = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (10, 10, 10))
    assert min(max(abs(a - b) for a, b in zip(color, void_color(palette), strict=True)) for color in palette) > 100


# In the browser -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    selenium = needed("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * 0.0.0.0"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options, selenium.ChromeService(driver))
    browser.set_window_size(1280, 900)
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The browser at the page of 500 images, of which number 499 is the worst; in every third a square is missed."""
    samples = Scenes(500)
    report = ErrorReport(samples)
    for index in range(500):
        sample = samples[index]
        prediction, confidence = predicted(sample, 1 + index // 8)
        if index % 3 == 0:
            prediction[sample["mask"] == 2] = 0
        report.update(index, sample, prediction, confidence)
    path = write_page(tmp_path_factory.mktemp("report"), report, report.matrix, CARD, TOLD)
    browser.get(path.as_uri())
    return browser


def wait_for(check: Callable[[], Any], seconds: float = 10) -> Any:
    end = time.monotonic() + seconds
    while not (result := check()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def names(page: Any) -> list[str]:
    return page.execute_script("return [...document.querySelectorAll('#cards .told strong')].map(e => e.textContent)")


def choose(page: Any, element: str, value: str) -> None:
    page.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('change')); e.dispatchEvent(new Event('input'))",
        element, value,
    )  # fmt: skip


@pytest.mark.browser
def test_it_opens_without_an_error_or_the_network(page: Any) -> None:
    assert page.get_log("browser") == []
    requests = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in requests if not name.startswith("data:")] == []


@pytest.mark.browser
def test_names_are_text(page: Any) -> None:
    assert page.title == "enet on streets test: where it errs"
    options = page.execute_script("return [...document.getElementById('class').options].map(e => e.textContent)")
    assert options[1:] == list(LABELS.names)
    assert HOSTILE in page.execute_script("return document.getElementById('class-table').textContent")
    assert re.match(r"1\. <i>[01]</i>.scene_\d+\.png", names(page)[0])
    assert "a <laptop>" in page.execute_script("return document.getElementById('facts').textContent")
    assert page.execute_script("return document.querySelectorAll('main script, main b b, #cards i').length") == 0


@pytest.mark.browser
def test_the_parts_hold_their_numbers(page: Any) -> None:
    text = page.execute_script("return document.body.textContent")
    assert "pavement taken for road" in text
    assert "one confusion matrix over all images" in text
    assert "expected calibration error" in text
    assert re.search(r"[\d.]+ % of the wrong pixels lie near a boundary", text)
    assert page.execute_script("return document.querySelectorAll('#matrix tbody td').length") == 16
    page.execute_script("document.querySelector('[data-pair=\"1,0\"]').focus()")
    assert re.match(r"pavement taken for road: [\d,]+ pixels", page.find_element("id", "cell").text)


@pytest.mark.browser
def test_five_hundred_images_are_there_the_worst_first_and_sort_anew(page: Any) -> None:
    shown = names(page)
    assert len(shown) == 500
    assert shown[0].startswith("1. ")
    ious = page.execute_script("return order.map(e => e.image.mean_iu)")
    assert ious == sorted(ious)
    choose(page, "order", "wrong")
    wrong = page.execute_script("return order.map(e => e.image.wrong)")
    assert wrong == sorted(wrong, reverse=True)
    assert wrong != sorted(wrong)
    choose(page, "order", "mean_iu")
    assert names(page) == shown


@pytest.mark.browser
def test_a_class_and_a_name_narrow_the_images(page: Any) -> None:
    choose(page, "class", "2")
    assert all(int(re.findall(r"scene_(\d+)", name)[0]) % 3 == 0 for name in names(page)[:100])  # where the square was missed
    choose(page, "class", "3")  # nowhere
    assert names(page) == []
    choose(page, "class", "")
    choose(page, "name", "SCENE_12")
    assert len(names(page)) == 10
    choose(page, "name", "")
    assert len(names(page)) == 500


@pytest.mark.browser
def test_pictures_load_when_they_are_scrolled_to(page: Any) -> None:
    last = "document.querySelector('#cards li:last-child')"
    assert page.execute_script(f"return {last}.querySelectorAll('img[src]').length") == 0
    page.execute_script(f"{last}.scrollIntoView()")
    loaded = f"return [...{last}.querySelectorAll('img')].every(e => e.src && e.complete && e.naturalWidth == 64)"
    assert wait_for(lambda: page.execute_script(loaded))


@pytest.mark.browser
def test_the_large_view_opens_steps_and_closes(page: Any) -> None:
    page.execute_script("document.querySelector('#cards .picture').click()")
    assert page.find_element("id", "position").text == "1 of 500"
    assert names(page)[0].endswith(page.find_element("id", "large-name").text)
    page.find_element("id", "next").click()
    assert names(page)[1].endswith(page.find_element("id", "large-name").text)
    page.find_element("css selector", "#toggles input").click()
    assert page.execute_script("return document.querySelectorAll('#panels figure:not([hidden])').length") == 3
    whole = "return [...document.querySelectorAll('#panels img')].every(e => e.complete && e.naturalWidth)"
    assert wait_for(lambda: page.execute_script(whole))
    page.find_element("id", "close").click()
    assert not page.execute_script("return document.getElementById('large').open")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_window_and_is_not_blank(page: Any, width: int, tmp_path: Path) -> None:
    import PIL.Image

    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    beyond = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    assert page.execute_script(beyond) == 0
    page.execute_script("document.getElementById('images').scrollIntoView()")
    assert wait_for(lambda: page.execute_script("return document.querySelectorAll('#cards li:first-child img[src]').length == 7"))
    page.save_screenshot(tmp_path / "screen.png")
    colors = {tuple(color) for _, color in PIL.Image.open(tmp_path / "screen.png").convert("RGB").getcolors(1 << 24)}
    assert {LABELS.palette[0], LABELS.palette[1], (226, 27, 60)} <= colors  # truth, prediction and errors are to be seen
    assert page.get_log("browser") == []
