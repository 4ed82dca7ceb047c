"""segue models."""

import inspect
from collections.abc import Sequence

from segue.cli.console import print_table
from segue.suggest import did_you_mean


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
            paper = (inspect.getdoc(inspect.getmodule(MODELS[name])) or "").splitlines()[0]
            rows.append((name, f"{parameters:,}", paper))
        if len(rows) == 1:
            raise ValueError(f'no model matches "{pattern}"{did_you_mean(pattern, list_models())}')
        print_table(rows)

    tyro.cli(command, args=args, prog="segue models")
