"""What the README and the docs say is so."""

import json
import re
from pathlib import Path

import pytest

from network_pages.results import write_results
from segue.cli import COMMANDS
from segue.recipes import RECIPES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/results/README.md"], ids=["README", "results"])
def test_the_rows_of_results_are_those_of_the_records(page: Path) -> None:
    rows = re.findall(r"^\| \[[^]]*\]\((\S*?)/?README\.md\) (\| .* trai?n.*)$", page.read_text(), re.MULTILINE)
    assert rows
    for folder, row in rows:
        record = json.loads((page.parent / folder / "scores.json").read_text())
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        training = record["training"]
        hours = training["hours"] + training.get("started_from", {}).get("hours", 0)
        assert cells[2:5] == [f"{record['scores'][name]:.3f}" for name in ("mean_iu", "acc", "acc_cls")]
        assert cells[6:] == [f"{hours:.1f}", training["hardware"], str(training["seed"]), training["commit"]]


def test_the_tables_of_results_are_up_to_date(tmp_path: Path) -> None:
    for path in (ROOT / "docs/results").glob("*/scores.json"):
        (tmp_path / path.parent.name).mkdir()
        (tmp_path / path.parent.name / "scores.json").write_text(path.read_text())
    write_results(tmp_path)
    for name in ("drawn.md", "em.md", "nuclei.md"):
        assert (tmp_path / name).read_text() == (ROOT / "docs/results" / name).read_text()


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
