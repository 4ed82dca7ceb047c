"""The loop of one's own on docs/quickstart.md works as it stands there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2].joinpath("docs/quickstart.md").read_text()


def test_a_loop_of_ones_own_learns(capsys: pytest.CaptureFixture[str]) -> None:
    (loop,) = [block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "backward" in block]
    exec(loop, {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < 0.8 * losses[0]
