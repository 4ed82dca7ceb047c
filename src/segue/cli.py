"""The command line: plain typed functions, whose heavy imports wait until they are called."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from segue import __version__
from segue.suggest import did_you_mean


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
            "usage: segue train RECIPE --out FOLDER [--field value ...]\n       segue train --resume FOLDER\n\n"
            "Recipes, by network; those of streets and cells draw their own data:\n"
            + "\n".join(f"  {network:18}{', '.join(recipes)}" for network, recipes in sorted(names.items()))
            + "\nFields of a recipe: segue train RECIPE --help"
        )
        return

    def resume(folder: tyro.conf.Positional[Path], devices: int = 0, nodes: int = 0) -> None:
        """Go on with the run in FOLDER after the last epoch that it finished."""
        from segue.runs import load_recipe
        from segue.training import train

        train(load_recipe(folder), folder, devices=devices, nodes=nodes, resume=True)

    if args[0] == "--resume":
        tyro.cli(resume, args=args[1:], prog="segue train --resume")
        return

    base = get_recipe(args[0])
    without_options = replace(base, options={})  # whose names would be the only ones that the command line takes

    def start(
        out: Path, recipe: Annotated[Recipe, tyro.conf.arg(name="")] = without_options, devices: int = 0, nodes: int = 0
    ) -> None:
        """Train by the recipe, with the fields given here in place of its own.

        Args:
            out: A new folder for everything that the run keeps.
            recipe: What to train, on what, and how.
            devices: Devices on each node; 0 takes one, or what torchrun says.
            nodes: Machines; 0 takes one, or what torchrun says.
        """
        from segue.training import train

        own = base.options if recipe.network == base.network else {}
        train(replace(recipe, options={**own, **recipe.options}), out, devices=devices, nodes=nodes)

    tyro.cli(start, args=args[1:], prog=f"segue train {args[0]}")


def evaluate(args: Sequence[str]) -> None:
    """Score a checkpoint on a split of a data set: segue evaluate runs/enet camvid --root CamVid --split test"""
    import tyro

    def command(
        checkpoint: tyro.conf.Positional[str], data: tyro.conf.Positional[str], root: str = "", split: str = "val",
        out: Path | None = None,
    ) -> None:  # fmt: skip
        """Print the scores of each class, and write them with a contact sheet.

        Args:
            checkpoint: A checkpoint's folder, a run's folder (its best is taken), or the name of one that comes with segue.
            data: camvid, cells, cityscapes, em, folder, nuclei, streets, sunrgbd or voc.
            root: The folder of the data set.
            split: train, val, test, or another that the data have, such as voc's trainval.
            out: The folder for scores.json, README.md and sheet.jpg; by default report/ in the run, or here.
        """
        score(checkpoint, data, root, split, out)

    tyro.cli(command, args=args, prog="segue evaluate")


def score(checkpoint: str, data: str, root: str, split: str, out: Path | None) -> Path:
    """Evaluate, print and record; gives the path of the contact sheet."""
    import time

    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.data import create_dataset
    from segue.evaluation import check_labels, evaluate
    from segue.inference import Predictor
    from segue.provenance import command_line, describe_machine
    from segue.report.record import score_table, write_record

    if out is None:
        folder = find_checkpoint(checkpoint)
        run = folder.parent if folder and (folder.parent / "recipe.json").exists() else Path()
        out = run / "report" / f"{data}-{split}"
    if (out / "README.md").exists() and not (out / "scores.json").exists():
        raise ValueError(f"{out} holds a README.md that is no record of scores, and would be overwritten; choose another --out")
    model, card = load_checkpoint(checkpoint)
    samples = create_dataset(data, root, split)
    predictor = Predictor.of(model, card)
    check_labels(predictor, samples)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    matrix = evaluate(predictor, samples, progress("scoring"))
    seconds = round(time.perf_counter() - start, 1)
    print_table(score_table(matrix), f"{card.network} on {data} {split}, {len(samples)} images, percent")
    evaluation = {"data": data, "split": split, "command": command_line(), "seconds": seconds, **describe_machine()}
    sheet = write_record(out, matrix, predictor, samples, card, evaluation)
    print(f"scores: {out / 'scores.json'}\npicture: {sheet}")
    return sheet


def predict(args: Sequence[str]) -> None:
    """Label photos: segue predict photo.jpg folder/ --out out"""
    import tyro

    def command(
        paths: tyro.conf.Positional[list[Path]], out: Path = Path("predictions"), crf: bool = False, samples: int = 0
    ) -> None:
        """Write a map of class numbers (PNG) and an overlay (JPEG) for each image, at the image's own size.

        Args:
            paths: Images and folders of images; the first may be a checkpoint. Without one, segue's own ENet is used.
            out: The folder for the results.
            crf: Move the edges of the classes to edges of the image, with DeepLab's dense CRF (other networks take v2's values).
            samples: Predict so often with dropout on, label by the mean, and write a picture of the variance (Bayesian SegNet).
        """
        label_photos(paths, out, crf, samples)

    tyro.cli(command, args=args, prog="segue predict")


def label_photos(paths: list[Path], out: Path, crf: bool, samples: int) -> None:
    from segue.checkpoint import find_checkpoint, load_checkpoint
    from segue.crf import CRFS
    from segue.images import read_image, write_image
    from segue.inference import Predictor
    from segue.report.sheet import heat_map, overlay

    named = bool(paths) and find_checkpoint(paths[0]) is not None
    for path in paths[named:]:
        if not path.exists():
            raise ValueError(f"{path} is neither an image, nor a folder, nor a checkpoint")
        if (path / "recipe.json").exists():
            raise ValueError(f"{path} is a run without a checkpoint; train it for an epoch first: segue train --resume {path}")
    checkpoint, inputs = (paths[0], paths[1:]) if named else (Path("enet-camvid"), paths)
    targets = plan_outputs(inputs, out)
    model, card = load_checkpoint(checkpoint)
    predictor = Predictor.of(model, card)
    if samples:
        predictor.check_sampling(samples)
    if predictor.channels not in (1, 3):
        raise ValueError(
            f"{card.network} takes {predictor.channels} channels here, and photos have 3; give it the others, such as depth, in "
            "Python: Predictor.load(checkpoint)(image, depth)"
        )
    variant = f"{card.network}-{card.options.get('backbone')}"
    dense_crf = CRFS.get(variant, CRFS.get(card.network, CRFS["deeplabv2"])) if crf else None
    out.mkdir(parents=True, exist_ok=True)
    broken = 0
    for source, target in progress("labelling")(list(targets.items())):
        try:
            image = read_image(source)
            mask, uncertainty = label_photo(predictor, image, dense_crf, samples)
        except (ValueError, MemoryError) as error:
            broken += 1
            print(f"left out: {error}", file=sys.stderr)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, mask)
        write_image(target.with_name(f"{target.stem}_overlay.jpg"), overlay(image, mask, predictor.labels))
        if uncertainty is not None:
            write_image(target.with_name(f"{target.stem}_uncertainty.jpg"), heat_map(uncertainty))
        print(f"{source} -> {target}: {summary(mask, predictor.labels.names)}")
    if broken:
        raise ValueError(f"{broken} of {len(targets)} images could not be labelled; they are named above")


def label_photo(predictor: Any, image: Any, dense_crf: Any, samples: int) -> tuple[Any, Any]:
    """The label map of an RGB image, and the variance of several samples where these are wanted, else None."""
    from segue.images import to_grey

    seen = to_grey(image) if predictor.channels == 1 else image
    if dense_crf is None and not samples:
        return predictor(seen), None
    probabilities, uncertainty = predictor.sampled(seen, samples) if samples else (predictor.probabilities(seen), None)
    if dense_crf is not None:
        probabilities = dense_crf(image, probabilities)
    return probabilities.argmax(axis=0).astype("uint8"), uncertainty


def plan_outputs(inputs: list[Path], out: Path) -> dict[Path, Path]:
    """Each image, those in folders included, with the path of its label map; ValueError if two would share one."""
    targets: dict[Path, Path] = {}
    for path in inputs:
        for source in images_in(path, out) if path.is_dir() else [path]:
            inside = source.relative_to(path).parent if path.is_dir() else Path()
            targets[source] = out / inside / f"{source.stem}.png"
    if not targets:
        raise ValueError("there are no images to label; name photos, or folders that hold some")
    owners: dict[Path, Path] = {}
    sources = {source.resolve() for source in targets}
    for source, target in targets.items():
        for written in (target, target.with_name(f"{target.stem}_overlay.jpg")):
            if written.resolve() in sources:
                raise ValueError(f"{written} is one of the images, and would be overwritten; choose another --out")
        if target in owners:
            raise ValueError(f"{owners[target]} and {source} would both become {target}; label them one by one with --out")
        owners[target] = source
    return targets


def images_in(folder: Path, out: Path) -> Iterator[Path]:
    """The images in a folder and the folders in it but `out`, by their suffix; how many other files there are is told."""
    from segue.images import IMAGE_SUFFIXES

    inside_out = folder.resolve() != out.resolve()
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not (inside_out and out.resolve() in path.resolve().parents)
    )
    others = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        print(f"{folder}: {len(others)} files are no images by their names, such as {others[0].name}", file=sys.stderr)
    yield from (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def summary(mask: Any, names: Sequence[str]) -> str:
    """The largest classes with their shares: 'road 41 %, building 30 %'."""
    import numpy as np

    shares = np.bincount(mask.reshape(-1), minlength=len(names)) / mask.size
    largest = [i for i in np.argsort(-shares)[:4] if shares[i] >= 0.005]
    return ", ".join(f"{names[i]} {100 * shares[i]:.0f} %" for i in largest)


def models(args: Sequence[str]) -> None:
    """List the networks, with their parameters and papers: segue models "*net*" """
    import tyro

    def command(pattern: tyro.conf.Positional[str] = "*") -> None:
        """List the networks whose names match the pattern; parameters are those with 19 classes."""
        import torch

        from segue.models import MODELS, create_model, list_models

        rows = [("network", "parameters", "paper")]
        for name in list_models(pattern):
            with torch.device("meta"):
                parameters = sum(p.numel() for p in create_model(name, 19).parameters())
            paper = (sys.modules[MODELS[name].__module__].__doc__ or "").strip().splitlines()[0]
            rows.append((name, f"{parameters:,}", paper))
        if len(rows) == 1:
            raise ValueError(f'no model matches "{pattern}"{did_you_mean(pattern, list_models())}')
        print_table(rows)

    tyro.cli(command, args=args, prog="segue models")


def demo(args: Sequence[str]) -> None:
    """Draw street scenes, train ENet on them for at most two minutes, and picture what it learned"""
    import tyro

    def command(out: Path | None = None) -> None:
        """Train on drawn scenes and score others, with no data and no download.

        Args:
            out: A new folder for the run; by default runs/demo, or runs/demo-2 and so on.
        """
        from segue.recipes import get_recipe
        from segue.training import train

        names = ["demo", *(f"demo-{n}" for n in range(2, 10_000))]
        run = out or next(Path("runs", name) for name in names if not Path("runs", name).exists())
        train(get_recipe("enet-streets"), run)
        score(str(run / "last"), "streets", "", "test", None)

    tyro.cli(command, args=args, prog="segue demo")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "models": models,
}


def main() -> None:
    """Run the command that the arguments name. Exit status 2 and a line that says what is wrong, where something is."""
    name, args = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        lines = [f"  {command:10}{(function.__doc__ or '').strip()}" for command, function in COMMANDS.items()]
        print("usage: segue COMMAND [--help] ...\n\nSemantic segmentation on PyTorch.\n\n" + "\n".join(lines))
        return
    if name == "--version":
        print(f"segue {__version__}")
        return
    try:
        if name not in COMMANDS:
            raise ValueError(f'no command "{name}"{did_you_mean(name, COMMANDS)}')
        COMMANDS[name](args)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"segue: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def print_table(rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table whose first row is the header and whose first column is text."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if column and heading != "paper" else "left")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)


def progress(description: str) -> Callable[[Any], Any]:
    """A progress bar for a sequence, gone when it is done."""
    from rich.progress import track

    return lambda sequence: track(sequence, description, transient=True, disable=not sys.stdout.isatty())


if __name__ == "__main__":
    main()
