"""What segue offers, name by name, is what tests/public_api.txt says: a change to it is made on purpose.

python tests/test_public_api.py --write
"""

import ast
import difflib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import segue

SNAPSHOT = Path(__file__).with_name("public_api.txt")
WRITE = "python tests/test_public_api.py --write"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def public_api() -> list[str]:
    """A line for each public name and each public member of a class, as their source has them, on every Python alike."""
    return [line for name in sorted(segue.__all__) for line in describe(name, getattr(segue, name))]


def describe(name: str, thing: Any) -> Iterator[str]:
    if not inspect.isclass(thing):
        yield f"function {name}{signature(parse(thing))}"
        return
    bases = [base for base in thing.__mro__ if base.__module__.partition(".")[0] == "segue"]
    yield f"class {name}"
    members: dict[str, str] = {}
    for base in reversed(bases):
        for node in parse(base).body:
            members |= member(node)
    for line in sorted(members.values(), key=lambda line: "" if line.startswith("field") else line):  # fields in their order
        yield f"    {line}"


def member(node: ast.stmt) -> dict[str, str]:
    """The line of a class's member by its name; none if it is not public."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
        return {node.target.id: f"field {ast.unparse(node)}"}
    if not isinstance(node, FUNCTIONS) or (node.name.startswith("_") and not node.name.startswith("__")):
        return {}
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    kind = next((kind for kind in ("property", "classmethod", "staticmethod") if kind in decorators), "method")
    return {node.name: f"{kind} {node.name}{signature(node)}"}


def parse(thing: Any) -> Any:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    return node


def signature(node: ast.FunctionDef) -> str:
    return f"({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def test_the_public_api_is_the_one_that_is_written_down() -> None:
    found, written = public_api(), SNAPSHOT.read_text("utf-8").splitlines()
    changes = "\n".join(difflib.unified_diff(written, found, "written down", "found", lineterm="", n=0))
    assert not changes, f"the public API has changed; if that is meant, tell it in CHANGELOG.md and run {WRITE}\n{changes}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(f"usage: {WRITE}")
    SNAPSHOT.write_text("\n".join(public_api()) + "\n", "utf-8")
