"""segue demo."""

from collections.abc import Sequence
from pathlib import Path

from segue.cli.console import print_evaluation, say
from segue.machine.progress import progress


def demo(args: Sequence[str]) -> None:
    """Draw street scenes, train ENet on them for at most two minutes, and picture what it learned"""
    import tyro

    def command(out: Path | None = None) -> None:
        """Train on drawn scenes and score others, with no data and no download.

        Args:
            out: A new folder for the run; by default runs/demo, or runs/demo-2 and so on.
        """
        from segue.evaluation import evaluate_and_record
        from segue.recipes import get_recipe
        from segue.training.train import train

        names = ["demo", *(f"demo-{n}" for n in range(2, 10_000))]
        run = out or next(Path("runs", name) for name in names if not Path("runs", name).exists())
        train(get_recipe("enet-streets"), run)
        evaluation = evaluate_and_record(run / "last", "streets", split="test", progress=progress("scoring"), say=say)
        if evaluation:
            print_evaluation(evaluation)

    tyro.cli(command, args=args, prog="segue demo")
