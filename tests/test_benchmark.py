import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from helpers.commands import call
from helpers.extras import needed
from segue import Labels, create_model, save_checkpoint
from segue.benchmark import Timing, network_of, parse_size, time_engine
from segue.checkpoint import Card
from segue.cli.benchmark import time_model
from segue.machine.memory import peak_memory
from segue.machine.peak_flops import peak_gflops
from segue.machine.provenance import describe_machine
from segue.models.counting import multiply_adds

ROOT = Path(__file__).parents[1]
LABELS = Labels.from_names(["sky", "road", "tree"])


def load(name: str) -> ModuleType:
    """A script of benchmarks/."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


harness, report = load("harness"), load("report")


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What engines remember of their measurements stays in the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "enet", create_model("enet", 3), Card("enet", LABELS))
    return tmp_path / "enet"


def segue_benchmark(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    return call(monkeypatch, "benchmark", *args)


# segue benchmark


def test_a_checkpoint_is_timed_and_recorded(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    options = ["--size", "64x96", "--engine", "torch", "--device", "cpu", "--seconds", "0.1", "--json", str(out)]
    assert segue_benchmark(monkeypatch, checkpoint, *options) == 0
    printed = capsys.readouterr().out
    assert "enet, 3 classes" in printed and "64 x 96 pixels" in printed and "random" not in printed
    for words in ("95 of 100", "prepare", "network", "last step", "share of the limit", "uint8 image in memory"):
        assert words in printed
    record = json.loads(out.read_text())
    (figures,) = record["engines"]
    assert (record["height"], record["width"], record["classes"], record["trained"]) == (64, 96, 3, True)
    assert record["parameters"] == sum(p.numel() for p in create_model("enet", 3).parameters())
    assert 0 < figures["quartile_1"] <= figures["median"] <= figures["quartile_3"] <= figures["p95"]
    assert figures["runs"] >= 5 and figures["limit"] > 0 and figures["share_of_limit"] > 0


def test_random_weights_are_said_to_be_random(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("enet", "--size", "64x64", "--seconds", 0, "--engine", "torch", "--classes", 5, "--device", "cpu")
    assert segue_benchmark(monkeypatch, *args) == 0
    printed = capsys.readouterr().out
    assert "enet, 5 classes" in printed and "random weights" in printed


def test_all_engines_give_a_column_or_a_reason(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.modules["segue.cli.benchmark"], "ENGINES", ("torch", "tensorrt"))
    args = ("enet", "--size", "64x64", "--seconds", 0, "--engine", "all", "--device", "cpu")
    assert segue_benchmark(monkeypatch, *args) == 0
    printed = capsys.readouterr().out
    assert "tensorrt is left out" in printed and "images a second" in printed


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("enett",), 'neither a checkpoint nor a network of segue models; did you mean "enet"?'),
        (("no/such/enet",), 'neither a checkpoint nor a network of segue models; did you mean "enet"?'),
        (("enet", "--size", "1024"), 'size (="1024") must be HEIGHTxWIDTH in pixels, such as 1024x2048'),
        (("enet", "--size", "0x64"), 'size (="0x64") must be'),
        (("enet", "--size", "-4x64"), "size"),
        (("enet", "--size", "64x64", "--engine", "tensorrt"), '"tensorrt"'),
        (("enet", "--size", "64x64", "--seconds", "-1"), "seconds (=-1.0) must be 0 or more"),
        (("enet", "--size", "64x64", "--classes", "0"), "classes (=0) must be 1 to 255"),
        (("enet", "--size", "64x64", "--json", "no/such/folder/x.json"), "is no folder"),
        (("enet", "--size", "64x64", "--json", "."), ". is a folder; --json names the file"),
        (("enet-camvid", "--size", "64x64", "--classes", "5"), "enet-camvid is a checkpoint, which has its own classes"),
    ],
)
def test_bad_arguments_end_in_one_line(
    args: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segue_benchmark(monkeypatch, *args) == 2
    assert complaint in capsys.readouterr().err


def test_what_is_measured_before_a_failure_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(model: torch.nn.Module, card: Card, size: tuple[int, int], engine: str, *more: Any) -> Timing:
        if engine == "fused":
            raise KeyboardInterrupt
        return time_engine(model, card, size, engine, "cpu", seconds=0, runs=1)

    monkeypatch.setattr("segue.benchmark.time_engine", stopped)
    monkeypatch.setattr(sys, "argv", ["segue"])
    out = tmp_path / "figures.json"
    with pytest.raises(KeyboardInterrupt):
        time_model("enet", "64x64", "all", "cpu", 0, None, out)
    assert [figures["engine"] for figures in json.loads(out.read_text())["engines"]] == ["torch"]


def test_a_network_says_what_size_it_takes_at_least() -> None:
    model, card, _ = network_of("enet")
    with pytest.raises(ValueError, match="8 x 8 at least"):
        time_engine(model, card, (4, 4), "torch", "cpu", seconds=0, runs=1)


def test_depth_is_drawn_for_a_network_that_uses_it() -> None:
    card = Card("enet", LABELS, 4, mean=(0.5,) * 4, std=(0.5,) * 4, depth=True)
    timing = time_engine(create_model("enet", 3, 4), card, (64, 64), "torch", "cpu", seconds=0, runs=2)
    assert timing.runs == 2 and timing.median >= timing.network


def test_sizes_are_height_and_width() -> None:
    assert parse_size("1024x2048") == parse_size("1024X2048") == (1024, 2048)


def test_multiply_adds_are_those_of_the_formula() -> None:
    layer = torch.nn.Conv2d(3, 8, 5, padding=2, stride=2)
    assert multiply_adds(layer, torch.empty(1, 3, 32, 48)) == 3 * 8 * 5 * 5 * 16 * 24
    assert layer.weight.device.type == "cpu" and layer.training


def test_the_peak_is_above_what_a_matrix_product_reaches() -> None:
    a = torch.rand(512, 512)
    best = 1.0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(5):
            start = time.thread_time()
            a @ a
            best = min(best, time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert peak_gflops(1) > 0.7 * 2e-9 * 512**3 / best  # of which the best is some 0.9; the rest is room for other work


def test_the_peak_is_that_of_whichever_does_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop whose vectors are half as wide as the machine's must not pass for the limit."""
    monkeypatch.setattr("segue.machine.peak_flops.product_gflops", lambda threads: 1e9)
    assert peak_gflops.__wrapped__(1) == 1e9


def test_peak_memory_sees_what_is_held_for_a_moment() -> None:
    found = peak_memory(lambda: np.ones(50_000_000, np.uint8).sum(), torch.device("cpu"))
    assert found is None or 45e6 < found < 120e6


# benchmarks/harness.py


def test_sides_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    times = harness.compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert {side: len(values) for side, values in times.items()} == {"a": 3, "b": 3}


def test_ratios_are_taken_round_by_round() -> None:
    summary = harness.summarize({"segue": [1.0, 2.0, 10.0], "peer": [3.0, 4.0, 10.0]}, "segue")
    assert summary["segue"]["median"] == 2 and summary["segue"]["ratio"] == 1
    peer = summary["peer"]
    assert (peer["median"], peer["quartile_1"], peer["quartile_3"]) == (4, 3.5, 7)
    assert peer["ratio"] == 2  # of 3, 2 and 1; the medians' quotient is 2 as well, the means' is not
    assert peer["ratio_quartiles"] == [1.5, 2.5]


def test_the_header_names_the_side_that_the_others_are_compared_with() -> None:
    for sides in ({"peer": [2.0], "segue": [1.0]}, {"segue": [1.0], "peer": [2.0]}):
        rows = harness.to_rows({"one": harness.summarize(sides, "segue"), "two": harness.summarize(sides, "segue")})
        assert [row["side"] for row in rows if row["ratio"] == 1] == ["segue", "segue"]
        lines = report.table(rows)
        assert "| beside segue |" in lines[0] and lines[3].endswith("| 2 x as slow |")


def test_a_processor_is_named_where_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    assert harness.machine("cuda")["hardware"] == describe_machine()["hardware"] == "1 x GPU"
    assert "GPU" not in describe_machine("cpu")["hardware"]
    assert harness.machine("cpu")["hardware"].endswith(f", {os.cpu_count()} cores")


def test_a_gpu_is_only_for_scripts_that_compute_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    threads = ["--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", ["benchmarks/engines.py", "--device", "cuda", *threads])
    assert harness.arguments("What.", devices=("cpu", "cuda")).out == Path("docs/performance/engines-cuda.json")
    with pytest.raises(SystemExit):
        harness.arguments("What.")


def test_a_record_says_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "performance" / "one.json"
    results = {"small": harness.summarize({"a": [0.5, 0.5], "b": [1.0, 1.0]}, "a")}
    harness.write_record(path, "python benchmarks/one.py", results, title="One", what="Two.", notes=["Three."])
    record = json.loads(path.read_text())
    assert [row["side"] for row in record["rows"]] == ["a", "b"] and record["rows"][1]["ratio"] == 2
    assert record["machine"]["versions"]["torch"] == torch.__version__ and record["threads"]["torch"] == torch.get_num_threads()
    assert {"commit", "date", "command", "title", "what", "notes"} <= set(record)
    harness.write_record(None, "", results)  # only prints


@pytest.mark.parametrize(("quick", "record"), [((), True), (("--quick",), False)])
def test_a_quick_run_leaves_the_record_alone(quick: tuple[str, ...], record: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["benchmarks/tiling.py", *quick, "--rounds", "9", "--threads", str(threads)])
    options = harness.arguments("What.\n\nMore.", size="512x1024")
    assert options.rounds == (9 if record else 3) and options.size == "512x1024"
    assert options.out == (Path("docs/performance/tiling.json") if record else None)


# benchmarks/report.py

ROWS = [
    {"case": "x", "side": "segue", "unit": "s", "median": 0.005, "quartile_1": 0.0049, "quartile_3": 0.0062, "ratio": 1.0},
    {"case": "x", "side": "torch", "unit": "s", "median": 0.6, "quartile_1": 0.58, "quartile_3": 0.61, "ratio": 118.2},
    {"case": "y", "side": "segue", "unit": "images/s", "median": 4.0, "ratio": 1.0, "share_of_peak": 0.5, "equal": 0.999996},
    {"case": "y", "side": "torch", "unit": "images/s", "median": 8.0, "ratio": 2.0},
    {"case": "z", "side": "torch", "unit": "MB", "median": 3300, "ratio": 7.0},
]


def test_the_table_tells_times_from_rates_and_amounts() -> None:
    lines = report.table(ROWS)
    assert lines[0] == "| case | side | median (quartiles) | beside the first | share of peak | equal |"
    assert lines[2] == "| x | segue | 5 ms (4.9 to 6.2) | 1 |  |  |"
    assert lines[3] == "|  | torch | 600 ms (580 to 610) | 118 x as slow |  |  |"
    assert lines[4] == "| y | segue | 4 images/s | 1 | 0.5 | 0.99999 |"  # nearly all is not all
    assert "2 x as fast" in lines[5] and "3,300 MB" in lines[6] and "7 x as much" in lines[6]


def test_the_page_holds_what_the_records_say() -> None:
    """`python benchmarks/report.py` writes it."""
    records = report.read_records(ROOT / "docs" / "performance")
    assert records
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == report.page(records)


def test_every_picture_on_the_page_is_there() -> None:
    for name, record in report.read_records(ROOT / "docs" / "performance").items():
        assert (ROOT / "docs" / "performance" / f"{name}.svg").exists() == bool(report.bars(record)), name


def test_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    needed("matplotlib").use("svg")
    for name in ("one", "two"):
        report.draw({"title": "T", "rows": ROWS[:2]}, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
