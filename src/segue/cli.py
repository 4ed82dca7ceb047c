"""The command line. Heavy modules are imported by the commands that need them."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from segue.suggest import did_you_mean


def train(args: Sequence[str]) -> None:
    """Train a network by a recipe; any of its fields can be overridden."""
    import json

    import tyro

    from segue.recipes import RECIPES, Recipe, get_recipe

    if args and args[0] == "--resume":
        folder = Path(args[1])

        def resume(devices: int = 0, nodes: int = 0) -> None:
            from segue.training import train

            recipe = Recipe.from_json(json.loads((folder / "recipe.json").read_text()))
            train(recipe, folder, devices=devices, nodes=nodes, resume=True)

        tyro.cli(resume, args=args[2:], prog="segue train --resume FOLDER")
        return

    base = get_recipe(args[0])

    def start(
        out: Path, recipe: Annotated[Recipe, tyro.conf.arg(name="")] = base, devices: int = 0, nodes: int = 0
    ) -> None:
        from segue.training import train

        train(recipe, out, devices=devices, nodes=nodes)

    tyro.cli(start, args=args[1:], prog=f"segue train {args[0]}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"train": train}


def main() -> None:
    COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
