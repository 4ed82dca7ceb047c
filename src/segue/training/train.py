"""Training: Lightning's Trainer does the loop, and this is the only file that knows it."""

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
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.utils.data import Dataset

from segue.checkpoint import load_checkpoint, load_stage, read_card
from segue.data import create_dataset
from segue.data.batches.transforms import Transform
from segue.data.samples import DataError
from segue.doctor import quick_check
from segue.labels import Labels
from segue.machine.memory import keep_freed_memory
from segue.models import create_model
from segue.models.backbones import load_classifier
from segue.recipes import Recipe, get_recipe
from segue.training.callbacks import KeepRun
from segue.training.checks import check_fit
from segue.training.run_folder import finished_epochs, is_finished, load_recipe, prepare_folder, training_record
from segue.training.task import Task, progress
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
    data = {"train_data": train_data, "val_data": val_data, "labels": labels, "transform": transform}
    state = out / "resume.ckpt"
    resume_epoch = finished_epochs(state) if resume and state.exists() else 0
    staged = bool(recipe.before) and not recipe.init and model is None and not resume_epoch
    if staged and max(devices, nodes, int(os.environ.get("WORLD_SIZE", 1))) > 1:
        raise ValueError(
            f'the recipe begins with "{recipe.before}"; on several devices, train that first, then this: --init ITS_FOLDER'
        )
    train_data = train_data if train_data is not None else create_dataset(recipe.data, recipe.root, recipe.split)
    val_data = val_data if val_data is not None else create_dataset(recipe.data, recipe.root, "val")
    labels = labels or getattr(train_data, "labels", None)
    if labels is None:
        raise ValueError("the training data have no attribute `labels`; pass labels=Labels.from_names([...])")
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        quick_check(train_data, val_data, progress)
    if not torch.cuda.is_available():
        keep_freed_memory()
    torch.manual_seed(recipe.seed)  # of the first weights
    network = model if model is not None else create_model(recipe.network, len(labels), len(recipe.mean), **recipe.options)
    check_fit(recipe, network, train_data)
    if staged:
        recipe = train_before(recipe, len(labels), out, resume, data)
    record = training_record(recipe)
    if resume_epoch:
        record |= {key: value for key, value in read_card(out / "last")[0].training.items() if key == "started_from"}
    elif recipe.init:
        initial, card = load_checkpoint(recipe.init)
        load_stage(network, initial.state_dict(), recipe.init)
        record["started_from"] = card.training
    elif recipe.classifier:
        load_classifier(network, recipe.classifier)
    network.train()
    task = Task(recipe, network, labels, train_data, val_data, transform)
    trainer = make_trainer(recipe, KeepRun(out, recipe, record, own_module=model is not None), devices, nodes)
    if len(val_data) < trainer.world_size:  # type: ignore[arg-type]
        raise DataError(
            f"the validation split has fewer samples than there are devices ({trainer.world_size}); use fewer devices"
        )
    if rank_zero_only.rank == 0 and not resume and not staged:  # type: ignore[attr-defined]
        prepare_folder(out, recipe)
    task.first_epoch = resume_epoch
    if resume and recipe.memory_format == "auto":
        task.format = load_recipe(out).memory_format
    if resume_epoch >= recipe.epochs:
        print(f"{out} is finished: it has all of its {recipe.epochs} epochs; for more, begin a run from it: --init {out}")
        return out
    try:
        with float32_products(recipe.tf32):
            trainer.fit(task, ckpt_path=str(state) if resume_epoch else None)
    except SystemExit:  # Lightning's answer to Ctrl-C, which it ignores from then on
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"stopped; go on with: segue train --resume {out}", flush=True)
        raise KeyboardInterrupt from None
    return out


def train_before(recipe: Recipe, num_classes: int, out: Path, resume: bool, data: dict[str, Any]) -> Recipe:
    """Train the recipe before this one in a folder beside `out`, go on with it, or find it done.

    Gives this recipe, starting from there. All that can be found wrong is found before.
    """
    first = get_recipe(recipe.before)
    shared = {name: getattr(recipe, name) for name in SHARED}
    first = replace(first, **shared, options={**recipe.options, **first.options})
    with torch.device("meta"):
        stages = [create_model(stage.network, num_classes, len(recipe.mean), **stage.options) for stage in (first, recipe)]
    load_stage(stages[1], stages[0].state_dict(), recipe.before)
    if not resume:
        prepare_folder(out, recipe)
    folder = out.with_name(f"{out.name}-{recipe.before}")
    print(f"first {recipe.before}, in {folder}", flush=True)
    try:
        if not (folder / "recipe.json").exists():
            train(first, folder, **data)
        elif not is_finished(folder):
            train(load_recipe(folder), folder, resume=True, **data)
    except KeyboardInterrupt:
        print(f"and with all that follows: segue train --resume {out}", flush=True)
        raise
    return replace(recipe, init=str(folder))


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


def quiet_lightning() -> None:
    """Leave out what Lightning tells on every start."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen norms
