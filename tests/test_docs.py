"""What the README and the docs say is so."""

import json
import re
from pathlib import Path

import pytest

from segue.cli import COMMANDS
from segue.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/results/README.md"], ids=["README", "results"])
def test_the_row_of_results_is_that_of_the_record(page: Path) -> None:
    record = json.loads((ROOT / "docs/results/enet-camvid/scores.json").read_text())
    row = next(line for line in page.read_text().splitlines() if line.startswith("| [ENet]"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    training = record["training"]
    scores = [f"{record['scores'][name]:.3f}" for name in ("mean_iu", "acc", "acc_cls")]
    hours = training["hours"] + training["started_from"]["hours"]
    assert cells[3:6] == scores
    assert cells[7:] == [f"{hours:.1f}", training["hardware"], str(training["seed"]), training["commit"]]


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@every_page
def test_commands_and_recipes_exist(page: Path) -> None:
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
    for command, argument in re.findall(r"^segue (\w+) ?([\w-]*)", blocks, re.MULTILINE):
        assert command in COMMANDS
        assert command != "train" or argument in RECIPES
