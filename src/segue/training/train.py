"""Training: what happens from a recipe to a run's folder; Lightning's Trainer does the loop."""

import logging
import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import Dataset

from segue.checkpoint import load_checkpoint, load_stage, read_card
from segue.data.batches.transforms import Transform
from segue.data.samples import DataError
from segue.labels import Labels
from segue.machine.memory import keep_freed_memory
from segue.models import create_model
from segue.models.backbones import load_classifier
from segue.recipes import Recipe, get_recipe
from segue.training.callbacks import KeepRun
from segue.training.checks import check_fit
from segue.training.run_folder import finished_epochs, is_finished, load_recipe, prepare_folder, training_record
from segue.training.splits import Splits
from segue.training.task import Task, is_first_process, progress
from segue.training.trial_step import float32_products

# What a recipe shares with the one that is trained before it.
SHARED = (
    "data", "root", "split", "batch_size", "short_side", "crop", "mean", "std", "classifier", "precision", "tf32", "compile",
    "accumulate", "memory_format", "cache", "minutes", "workers", "seed",
)  # fmt: skip


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    train_data: Dataset[Any] | None = None,
    val_data: Dataset[Any] | None = None,
    labels: Labels | None = None,
    model: nn.Module | None = None,
    transform: Transform | None = None,
    devices: int = 0,
    nodes: int = 0,
    resume: bool = False,
) -> Path:
    """Train as the recipe says and keep everything in the new folder `out`; gives that folder.

    train_data, val_data: data sets of one's own in place of the recipe's; their samples are dicts with image (H, W, C) of uint8,
    uint16 or float32, and mask uint8 (H, W). `labels` names their classes, unless the data set has an attribute `labels`.
    model: a module of one's own, from floats (N, C, H, W) to logits (N, K, H, W), in place of the recipe's network.
    transform: called as transform(image=..., mask=...), in place of the recipe's augmentation.
    devices, nodes: 0 takes what torchrun says, or else one device on one node.
    resume: go on with the run in `out` after the last epoch that it finished.

    The folder holds recipe.json, metrics.csv, tensorboard/, the checkpoints best/ (by validation mean IU) and last/,
    and resume.ckpt. ValueError for data or an `out` that cannot be used; FloatingPointError, naming the batch's files, if the
    loss is not finite.
    """
    out = Path(out)
    quiet_lightning()
    done = finished_epochs(out) if resume else 0
    if is_staged(recipe, model, done):
        check_single_device(recipe, devices, nodes)
    splits = Splits(recipe, train_data, val_data, labels, transform, progress)
    if is_first_process():
        splits.check()
    if not torch.cuda.is_available():
        keep_freed_memory()
    return train_stage(recipe, out, splits, model=model, devices=devices, nodes=nodes, resume=resume, done=done)


def train_stage(
    recipe: Recipe, out: Path, splits: Splits, *, model: nn.Module | None = None, devices: int = 0, nodes: int = 0,
    resume: bool = False, done: int = 0,
) -> Path:  # fmt: skip
    """Train as `train` does, on data that are checked, after the recipe before this one. done: epochs that `out` has finished."""
    network = build_network(recipe, model, splits)
    staged = is_staged(recipe, model, done)
    if staged:
        recipe = train_before(recipe, out, splits, resume)
    record = training_record(recipe) | choose_weights(recipe, network, out, done)
    task = Task(recipe, network.train(), splits, first_epoch=done)
    trainer = make_trainer(recipe, KeepRun(out, recipe, record, own_module=model is not None), devices, nodes)
    check_share(splits, trainer)
    if resume and recipe.memory_format == "auto":
        task.format = load_recipe(out).memory_format
    if is_first_process() and not resume and not staged:
        prepare_folder(out, recipe)
    if done < recipe.epochs:
        fit(trainer, task, out, done)
    else:
        print(f"{out} is finished: it has all of its {recipe.epochs} epochs; for more, begin a run from it: --init {out}")
    return out


def is_staged(recipe: Recipe, model: nn.Module | None, done: int) -> bool:
    """Whether another recipe is trained before this one."""
    return bool(recipe.before) and not recipe.init and model is None and not done


def check_single_device(recipe: Recipe, devices: int, nodes: int) -> None:
    if max(devices, nodes, int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise ValueError(
            f'the recipe begins with "{recipe.before}"; on several devices, train that first, then this: --init ITS_FOLDER'
        )


def build_network(recipe: Recipe, model: nn.Module | None, splits: Splits) -> nn.Module:
    """The recipe's network, or the module in its place; ValueError if it does not fit the data, the recipe and this machine."""
    torch.manual_seed(recipe.seed)  # of the first weights
    network = model if model is not None else create_model(recipe.network, len(splits.labels), len(recipe.mean), **recipe.options)
    check_fit(recipe, network, splits.train)
    return network


def train_before(recipe: Recipe, out: Path, splits: Splits, resume: bool) -> Recipe:
    """Train the recipe before this one in a folder beside `out`, go on with it, or find it done.

    Gives this recipe, starting from there. All that can be found wrong is found before.
    """
    first = get_recipe(recipe.before)
    shared = {name: getattr(recipe, name) for name in SHARED}
    first = replace(first, **shared, options={**recipe.options, **first.options})
    with torch.device("meta"):
        stages = [create_model(stage.network, len(splits.labels), len(recipe.mean), **stage.options) for stage in (first, recipe)]
    load_stage(stages[1], stages[0].state_dict(), recipe.before)
    if not resume:
        prepare_folder(out, recipe)
    folder = out.with_name(f"{out.name}-{recipe.before}")
    print(f"first {recipe.before}, in {folder}", flush=True)
    try:
        if not (folder / "recipe.json").exists():
            train_stage(first, folder, splits)
        elif not is_finished(folder):
            train_stage(load_recipe(folder), folder, splits, resume=True, done=finished_epochs(folder))
    except KeyboardInterrupt:
        print(f"and with all that follows: segue train --resume {out}", flush=True)
        raise
    return replace(recipe, init=str(folder))


def choose_weights(recipe: Recipe, network: nn.Module, out: Path, done: int) -> dict[str, Any]:
    """Give the network the weights that it starts from, if it is to have any; gives what the run's record tells of them."""
    if done:  # and the weights come from resume.ckpt
        return {key: value for key, value in read_card(out / "last")[0].training.items() if key == "started_from"}
    if recipe.init:
        initial, card = load_checkpoint(recipe.init)
        load_stage(network, initial.state_dict(), recipe.init)
        return {"started_from": card.training}
    if recipe.classifier:
        load_classifier(network, recipe.classifier)
    return {}


def make_trainer(recipe: Recipe, keeper: KeepRun, devices: int, nodes: int) -> pl.Trainer:
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))  # set by torchrun, as WORLD_SIZE is
    devices = devices or local or 1
    nodes = nodes or (int(os.environ["WORLD_SIZE"]) // local if local else 1)
    terminal = sys.stderr.isatty()
    return pl.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        sync_batchnorm=torch.cuda.is_available() and devices * nodes > 1,
        precision=recipe.precision,
        accumulate_grad_batches=recipe.accumulate,
        max_epochs=recipe.epochs,
        logger=TensorBoardLogger(keeper.out, name="tensorboard", version=""),
        callbacks=[keeper, *([TQDMProgressBar(leave=False)] if terminal else [])],
        enable_progress_bar=terminal,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # EpochSampler and EvaluationSamples do it, and repeat no sample
        log_every_n_steps=10,
    )


def check_share(splits: Splits, trainer: pl.Trainer) -> None:
    if len(splits.val) < trainer.world_size:  # type: ignore[arg-type]
        raise DataError(
            f"the validation split has fewer samples than there are devices ({trainer.world_size}); use fewer devices"
        )


def fit(trainer: pl.Trainer, task: Task, out: Path, done: int) -> None:
    """Train to the end, from the beginning or from where `out` stands; Ctrl-C is told how to go on."""
    try:
        with float32_products(task.recipe.tf32):
            trainer.fit(task, ckpt_path=str(out / "resume.ckpt") if done else None)
    except SystemExit:  # Lightning's answer to Ctrl-C, which it ignores from then on
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"stopped; go on with: segue train --resume {out}", flush=True)
        raise KeyboardInterrupt from None


def quiet_lightning() -> None:
    """Leave out what Lightning tells on every start."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen norms
