from pathlib import Path

import numpy as np
import pytest

from network_pages.results import chance, write_results
from segue import Labels, Predictor, create_model, evaluate
from segue.checkpoint import Card
from segue.data.synthetic.streets import STREETS, Streets
from segue.evaluation.record import evenly, markdown_table, write_record
from segue.images.pictures import Row, contact_sheet, error_map, overlay
from segue.machine.provenance import describe_machine
from segue.metrics import ConfusionMatrix

LABELS = Labels(("road", "sky"), ((128, 64, 128), (70, 130, 180)))


def row(height: int = 60, width: int = 80) -> Row:
    truth = np.zeros((height, width), np.uint8)
    truth[: height // 2] = 1
    prediction = truth.copy()
    prediction[:, : width // 4] = 0
    truth[:5] = 255
    return Row(np.full((height, width, 3), 90, np.uint8), truth, prediction, "scene 1")


def test_errors_are_red_void_is_black_and_the_rest_pale() -> None:
    picture = error_map(row())
    assert picture[10, 5].tolist() == [226, 27, 60]
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[50, 50].min() > 160


def test_a_sheet_shows_truth_and_prediction_in_the_colours_of_the_labels() -> None:
    sheet = contact_sheet([row(), row()], LABELS, "ENet", [0.5, float("nan")], width=640)
    assert sheet.shape[1] == 640
    for color in LABELS.palette:
        assert (sheet == color).all(axis=2).sum() > 500


def test_a_sheet_takes_grey_many_channelled_and_tall_images() -> None:
    for channels in (1, 3, 5):
        tall = row(90, 30)
        image = np.full((90, 30, channels), 90, np.uint8)
        assert contact_sheet([Row(image, tall.truth, tall.prediction)], LABELS, "t", width=400).shape[1] == 400


def test_an_overlay_tints_the_image() -> None:
    tinted = overlay(np.full((4, 4, 3), 100, np.uint8), np.ones((4, 4), np.uint8), LABELS, strength=0.5)
    assert tinted[0, 0].tolist() == [85, 115, 140]


def test_chance_is_the_score_of_the_most_frequent_class_alone() -> None:
    matrix = ConfusionMatrix(["a", "b", "c"])
    truth = np.array([0, 1, 1, 1, 0, 1], np.uint8)
    matrix.update(truth, np.full_like(truth, 1))
    assert chance({"confusion": matrix.to_json()}) == pytest.approx(matrix.mean_iu)


def test_a_name_ends_no_cell_of_a_table() -> None:
    assert markdown_table([("class", "a|b"), ("x | y", "1")]) == ["| class | a\\|b |", "| --- | ---: |", "| x \\| y | 1 |"]


def test_the_table_has_a_row_for_every_record_on_drawn_data(tmp_path: Path) -> None:
    model = create_model("enet", len(STREETS))
    predictor = Predictor(model, STREETS, (0.0,) * 3, (1.0,) * 3)
    training = {"command": "segue train a", "hours": 0.05, "hardware": "a laptop", "seed": 3, "commit": "abc"}
    card = Card("enet", STREETS, training=training)
    samples = Streets("test", count=1, size=(32, 40))
    matrix = evaluate(predictor, samples)
    pictured = {index: predictor(samples[index]["image"]) for index in evenly(samples)}
    for name, data in (("a", "streets"), ("b", "camvid")):
        told = {"data": data, "split": "test", "command": "segue evaluate", "seconds": 1, **describe_machine()}
        write_record(tmp_path / name, matrix, pictured, samples, card, told)
    write_results(tmp_path)
    (row,) = [line for line in (tmp_path / "drawn.md").read_text().splitlines() if line.startswith("| [")]
    assert row.startswith(f"| [enet](a/README.md) | `segue train a` | {matrix.mean_iu:.3f} |")
    assert row.endswith("| 3 | a laptop | 3 | abc |")
