"""The command line: one file a command, plain typed functions, whose heavy imports wait until they are called."""

import sys
from collections.abc import Callable, Sequence

from segue._version import __version__
from segue.cli.benchmark import benchmark
from segue.cli.compare import compare
from segue.cli.data import data
from segue.cli.demo import demo
from segue.cli.doctor import doctor
from segue.cli.evaluate import evaluate
from segue.cli.export import export
from segue.cli.models import models
from segue.cli.predict import predict
from segue.cli.train import train
from segue.suggest import did_you_mean

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "demo": demo,
    "data": data,
    "doctor": doctor,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "export": export,
    "benchmark": benchmark,
    "models": models,
}


def main() -> None:
    """Run the command that the arguments name. Exit status 2 and a line that says what is wrong, where something is."""
    name, args = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        lines = [f"  {command:11}{(function.__doc__ or '').strip()}" for command, function in COMMANDS.items()]
        print("usage: segue COMMAND [--help] ...\n\nSemantic segmentation on PyTorch.\n\n" + "\n".join(lines))
        return
    if name == "--version":
        print(f"segue {__version__}")
        return
    try:
        if name not in COMMANDS:
            raise ValueError(f'no command "{name}"{did_you_mean(name, COMMANDS)}')
        COMMANDS[name](args)
    except (ValueError, FloatingPointError, OSError, RuntimeError, MemoryError) as error:
        print(f"segue: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def one_line(error: Exception) -> str:
    """What went wrong, without the lines that torch puts around and behind it."""
    text = str(error) or type(error).__name__
    if "Original Traceback" in text:  # of a process that loads samples
        *_, last = text.strip().splitlines()
        text = last.split(": ", 1)[-1]
    if isinstance(error, RuntimeError):
        text = text.strip().splitlines()[0]
    if isinstance(error, MemoryError) or any(words in text.lower() for words in ("allocate memory", "out of memory")):
        return f"there is not enough memory: {text}; take smaller images, crops or batches, or close other programs"
    return text
