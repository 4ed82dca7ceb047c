"""segue train."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from segue.recipes import Recipe


def train(args: Sequence[str]) -> None:
    """Train a network by a recipe: segue train enet-camvid --root CamVid --out runs/enet"""
    from dataclasses import replace

    import tyro

    from segue.recipes import RECIPES, Recipe, get_recipe

    if not args or args[0] in ("-h", "--help"):
        names: dict[str, list[str]] = {}
        for name, recipe in RECIPES.items():
            names.setdefault(recipe.network, []).append(name)
        print(
            "usage: segue train RECIPE --out FOLDER [--field value ...]\n       segue train RECIPE --plan [--field value ...]\n"
            "       segue train --resume FOLDER [--root FOLDER]\n\n"
            "Recipes, by network; those of streets and cells draw their own data:\n"
            + "\n".join(f"  {network:18}{', '.join(recipes)}" for network, recipes in sorted(names.items()))
            + "\nFields of a recipe: segue train RECIPE --help"
        )
        return

    def resume(folder: tyro.conf.Positional[Path], root: str = "", devices: int = 0, nodes: int = 0) -> None:
        """Go on with the run in FOLDER after the last epoch that it finished.

        Args:
            folder: The run's.
            root: Where its data are now, if they have moved.
            devices: Devices on each node; 0 takes one, or what torchrun says.
            nodes: Machines; 0 takes one, or what torchrun says.
        """
        from segue.training.run_folder import load_recipe, move_data
        from segue.training.train import train

        if root:
            move_data(folder, root)
        train(load_recipe(folder), folder, devices=devices, nodes=nodes, resume=True)

    if args[0] == "--resume":
        check_resumed(args[1:])
        tyro.cli(resume, args=args[1:], prog="segue train --resume")
        return

    base = get_recipe(args[0])
    without_options = replace(base, options={})  # whose names would be the only ones that the command line takes

    def start(
        out: Path | None = None, recipe: Annotated[Recipe, tyro.conf.arg(name="")] = without_options, devices: int = 0,
        nodes: int = 0, plan: bool = False,
    ) -> None:  # fmt: skip
        """Train by the recipe, with the fields given here in place of its own.

        Args:
            out: A new folder for everything that the run keeps.
            recipe: What to train, on what, and how.
            devices: Devices on each node; 0 takes one, or what torchrun says.
            nodes: Machines; 0 takes one, or what torchrun says.
            plan: Measure a few steps here, and print what the run would take in time and memory. Nothing is written.
        """
        own = base.options if recipe.network == base.network else {}
        recipe = replace(recipe, options={**own, **recipe.options})
        if plan:
            if min(devices, nodes) < 0:
                raise ValueError(f"devices (={devices}) and nodes (={nodes}) must not be negative")
            show_plan(recipe, (devices or 1) * (nodes or 1))
            if out is not None:
                print(f"{out} is left alone: a plan writes nothing; to train, leave out --plan")
            return
        if out is None:
            raise ValueError("say where to keep the run, in a new folder: --out FOLDER")
        from segue.training.train import train

        train(recipe, out, devices=devices, nodes=nodes)

    tyro.cli(start, args=args[1:], prog=f"segue train {args[0]}")


def check_resumed(args: Sequence[str]) -> None:
    """ValueError if a run that goes on is to get other fields than its own."""
    from dataclasses import fields

    from segue.recipes import Recipe

    names = {f"--{field.name}".replace("_", "-") for field in fields(Recipe)} - {"--root"}
    for arg in args:
        name = arg.split("=")[0].replace("_", "-")
        if name in names:
            folder = next((arg for arg in args if not arg.startswith("-")), "RUN")
            raise ValueError(
                f"a run goes on by its own recipe, so {name} cannot be changed; begin a new run from it: segue train RECIPE "
                f"--init {folder} {name} ... --out NEW"
            )


def show_plan(recipe: "Recipe", devices: int) -> None:
    from segue.cli.console import print_table
    from segue.training.planning import plan, plan_table

    print_table(plan_table(plan(recipe, devices)))
