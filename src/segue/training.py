"""Training: Lightning's Trainer does the loop, and this is the only file that knows it."""

import csv
import json
import logging
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segue.checkpoint import Card, load_checkpoint, load_weights, save_checkpoint
from segue.data import create_dataset
from segue.data.loading import EvaluationSamples, TrainingSamples, evaluation_loader, sample_name, training_loader
from segue.data.samples import DataError, Samples
from segue.data.transforms import Augment, Transform
from segue.inference import Normalize, label_maps, resize_image, working_size
from segue.labels import Labels
from segue.losses import cross_entropy
from segue.metrics import ConfusionMatrix
from segue.models import create_model
from segue.optimization import SCHEDULES, make_optimizer
from segue.provenance import command_line, commit, describe_machine
from segue.recipes import Recipe
from segue.report.sheet import Row, contact_sheet
from segue.weights import count_labels, enet_weights, median_frequency_weights

PICTURED = 4  # validation samples that are shown in TensorBoard


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

    train_data, val_data: data sets of one's own in place of the recipe's; their samples are dicts with image uint8 (H, W, C) and
    mask uint8 (H, W). `labels` names their classes, unless the data set has an attribute `labels`.
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
    train_data = train_data if train_data is not None else create_dataset(recipe.data, recipe.root, "train")
    val_data = val_data if val_data is not None else create_dataset(recipe.data, recipe.root, "val")
    labels = labels or getattr(train_data, "labels", None)
    if labels is None:
        raise ValueError("the training data have no attribute `labels`; pass labels=Labels.from_names([...])")
    for split, samples in (("training", train_data), ("validation", val_data)):
        check_samples(samples, split)
    torch.manual_seed(recipe.seed)  # of the first weights
    network = model if model is not None else create_model(recipe.network, len(labels), len(recipe.mean), **recipe.options)
    record = training_record(recipe)
    if recipe.init:
        initial, card = load_checkpoint(recipe.init)
        load_weights(network, initial.state_dict(), recipe.init)
        record["started_from"] = card.training
    check_fit(recipe, network, train_data)
    task = Task(recipe, network, labels, train_data, val_data, transform)
    trainer = make_trainer(recipe, KeepRun(out, recipe, record, own_module=model is not None), devices, nodes)
    if len(val_data) < trainer.world_size:  # type: ignore[arg-type]
        raise DataError(
            f"the validation split has fewer samples than there are devices ({trainer.world_size}); use fewer devices"
        )
    prepare_folder(out, recipe, resume)
    state = out / "resume.ckpt"
    if resume and state.exists():
        task.first_epoch = finished_epochs(state)
    try:
        trainer.fit(task, ckpt_path=str(state) if task.first_epoch else None)
    except SystemExit:  # Lightning's answer to Ctrl-C, which it ignores from then on
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print(f"stopped; go on with: segue train --resume {out}", flush=True)
        raise KeyboardInterrupt from None
    return out


def load_recipe(run: str | Path) -> Recipe:
    """The recipe of a run's folder; ValueError if that is no run."""
    path = Path(run) / "recipe.json"
    try:
        return Recipe.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{run} is no run: it has no recipe.json; name the folder that was given to --out") from None
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


class Task(pl.LightningModule):
    """A network with its recipe and its data, as Lightning wants them."""

    def __init__(
        self, recipe: Recipe, network: nn.Module, labels: Labels, train_data: Dataset[Any], val_data: Dataset[Any],
        transform: Transform | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.recipe, self.network, self.labels = recipe, network, labels
        self.train_data, self.val_data = train_data, val_data
        self.transform_samples = transform or Augment(recipe.crop, recipe.scale, recipe.flip, recipe.jitter)
        self.normalize = Normalize(recipe.mean, recipe.std)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights(recipe, train_data, len(labels)), persistent=False)
        supervise: Callable[[Tensor], dict[str, Tensor]] = getattr(network, "supervise", lambda x: {"main": network(x)})
        self.supervise = torch.compile(supervise) if recipe.compile else supervise
        self.first_epoch = 0
        self.short_side = int(min(np.shape(val_data[0]["mask"])))  # in pixels, at which images are predicted
        self.matrix = ConfusionMatrix(labels.names)
        self.pictured: list[Row] = []

    def train_dataloader(self) -> DataLoader[Any]:
        samples = TrainingSamples(self.train_data, self.transform_samples, len(self.labels), self.recipe.seed)
        share = self.trainer.global_rank, self.trainer.world_size
        return training_loader(samples, self.recipe.batch_size, self.recipe.workers, self.first_epoch, *share)

    def val_dataloader(self) -> DataLoader[Any]:
        samples = EvaluationSamples(self.val_data, len(self.labels), self.trainer.global_rank, self.trainer.world_size)
        return evaluation_loader(samples, self.recipe.workers)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.recipe, self.network.parameters())
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: SCHEDULES[self.recipe.schedule](step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        # Dropout depends on these numbers alone, so a resumed run repeats it.
        numbers = (self.recipe.seed, self.current_epoch, number, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        outputs = self.supervise(self.normalize(batch["image"]))
        loss = cross_entropy(outputs["main"].float(), batch["mask"], self.class_weights, self.recipe.loss)
        if not torch.isfinite(loss):
            names = ", ".join(sample_name(self.train_data, int(index)) for index in batch["index"])
            raise FloatingPointError(
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1} on the batch of {names}; look at these files, "
                "or lower learning_rate"
            )
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, sync_dist=self.trainer.world_size > 1)
        return loss

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        truth = batch["mask"].cpu().numpy()
        x = resize_image(self.normalize(batch["image"]), working_size(self.short_side, *truth.shape[-2:]))
        prediction = label_maps(self.network, x, truth.shape[-2:]).cpu().numpy()
        self.matrix.update(truth, prediction)
        if number < PICTURED:
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
            self.pictured.append(Row(image, truth[0], prediction[0], sample_name(self.val_data, int(batch["index"][0]))))

    def on_validation_epoch_start(self) -> None:
        self.matrix, self.pictured = ConfusionMatrix(self.labels.names), []

    def on_validation_epoch_end(self) -> None:
        counts = torch.from_numpy(self.matrix.counts).to(self.device)
        self.matrix.counts = self.trainer.strategy.reduce(counts, reduce_op="sum").cpu().numpy()
        for name, score in self.matrix.scores().items():
            self.log(name, score, prog_bar=name == "mean_iu", sync_dist=self.trainer.world_size > 1)


class KeepRun(Callback):
    """Writes the run's folder: metrics.csv, best/, last/ and resume.ckpt, after each epoch."""

    def __init__(self, out: Path, recipe: Recipe, record: dict[str, Any], own_module: bool) -> None:
        self.out, self.recipe, self.record, self.own_module = out, recipe, record, own_module
        self.best = -1.0
        self.seconds = 0.0  # of training, interruptions left out
        self.started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.seconds = state["best"], state["seconds"]

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.started = time.monotonic()
        if trainer.is_global_zero:
            drop_rows_from(self.out / "metrics.csv", trainer.current_epoch + 1)

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == self.recipe.epochs
        trainer.check_val_every_n_epoch = 1 if last else self.recipe.validate_every

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        if isinstance(trainer.logger, TensorBoardLogger) and isinstance(task, Task) and task.pictured and trainer.is_global_zero:
            title = f"epoch {trainer.current_epoch + 1}, validation mean IU {task.matrix.mean_iu:.3f}"
            sheet = contact_sheet(task.pictured, task.labels, title, task.matrix.iu.tolist())
            trainer.logger.experiment.add_image("predictions", sheet, trainer.global_step, dataformats="HWC")

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        now = time.monotonic()
        self.seconds, self.started = self.seconds + now - self.started, now
        loss = float(trainer.callback_metrics["loss_epoch"])  # asked of all processes at once
        try:
            if isinstance(task, Task) and trainer.is_global_zero:
                self.keep(trainer, task, loss)
            part = self.out / "resume.ckpt.part"
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                part.replace(self.out / "resume.ckpt")
        except OSError as error:
            raise OSError(f"{self.out} cannot be written ({error}); mend that, then: segue train --resume {self.out}") from error
        over = bool(self.recipe.minutes) and self.seconds > 60 * self.recipe.minutes
        trainer.should_stop = trainer.strategy.broadcast(over)

    def keep(self, trainer: pl.Trainer, task: Task, loss: float) -> None:
        epoch = trainer.current_epoch + 1
        validated = task.matrix.counts.any() and epoch % (trainer.check_val_every_n_epoch or 1) == 0
        scores = task.matrix.scores() if validated else {}
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "loss": loss,
            **{name: scores.get(name, "") for name in ("acc", "acc_cls", "mean_iu", "fw_iu")},
            "seconds": round(self.seconds, 1),
        }
        append_row(self.out / "metrics.csv", row)
        line = f"epoch {epoch}/{self.recipe.epochs}  loss {loss:.3f}"
        print(line + (f"  mean IU {scores['mean_iu']:.3f}" if scores else "") + f"  {self.seconds:.0f} s", flush=True)
        card = self.card(epoch, task, scores)
        save_checkpoint(self.out / "last", task.network, card)
        if scores and scores["mean_iu"] > self.best:
            self.best = scores["mean_iu"]
            save_checkpoint(self.out / "best", task.network, card)

    def card(self, epoch: int, task: Task, scores: dict[str, float]) -> Card:
        recipe = self.recipe
        training = {**self.record, "epochs": epoch, "hours": round(self.seconds / 3600, 3)}
        return Card(
            network=type(task.network).__qualname__ if self.own_module else recipe.network,
            labels=task.labels,
            in_channels=len(recipe.mean),
            options={} if self.own_module else recipe.options,
            mean=recipe.mean,
            std=recipe.std,
            short_side=task.short_side,
            recipe={**recipe.to_json(), "root": "", "init": ""},
            training=training,
            scores={f"{recipe.data} val": scores} if scores else {},
        )


def training_record(recipe: Recipe) -> dict[str, Any]:
    """What the checkpoint tells of its training, beside the recipe."""
    return {"command": command_line(), "commit": commit(), "seed": recipe.seed, **describe_machine()}


def finished_epochs(state: Path) -> int:
    """How many epochs the run with this resume.ckpt has finished; ValueError if the file is damaged."""
    try:
        return int(torch.load(state, mmap=True, weights_only=True)["epoch"]) + 1
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{state} is damaged ({error}); begin a new run, with --init {state.parent / 'last'}") from None


def check_fit(recipe: Recipe, network: nn.Module, train_data: Dataset[Any]) -> None:
    """ValueError if the images have other channels than the recipe, or its crops are too small for the network."""
    channels = np.shape(train_data[0]["image"])[-1]
    if channels != len(recipe.mean):
        raise ValueError(
            f"the images have {channels} channels, but mean (={recipe.mean}) and std have {len(recipe.mean)} numbers; "
            "give them one for each channel"
        )
    smallest = getattr(network, "min_size", 1)
    if min(recipe.crop) < smallest:
        raise ValueError(f"crop (={recipe.crop}) must be at least {smallest} x {smallest} for {recipe.network}; use larger crops")


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


def class_weights(recipe: Recipe, samples: Dataset[Any], num_classes: int) -> Tensor | None:
    if recipe.class_weights == "none":
        return None
    counts = count_labels(samples, num_classes, progress("counting labels"))
    if recipe.class_weights == "enet":
        return torch.from_numpy(enet_weights(counts, recipe.enet_c))
    return torch.from_numpy(median_frequency_weights(counts))


def check_samples(samples: Any, split: str) -> None:
    """DataError if the split is empty or one of its files cannot be used."""
    if len(samples) == 0:
        raise DataError(f"the {split} split is empty")
    if isinstance(samples, Samples):
        for index in progress(f"checking the {split} split")(range(len(samples))):
            samples.check(index)


def progress(description: str) -> Callable[[Any], Any]:
    """A progress bar for a sequence, on the first process, gone when it is done."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return iter
    return lambda sequence: track(sequence, description, transient=True, disable=not sys.stdout.isatty())


@rank_zero_only
def prepare_folder(out: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run's folder with its recipe.json; ValueError if it holds anything and is not to be resumed."""
    if resume or int(os.environ.get("NODE_RANK", 0)):
        return
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ValueError(
                f"{out} holds something already, and nothing is overwritten; choose another folder"
                + (f", or go on with that run: segue train --resume {out}" if (out / "recipe.json").exists() else "")
            )
        out.mkdir(parents=True, exist_ok=True)
        saved = replace(recipe, root=absolute(recipe.root), init=absolute(recipe.init))
        (out / "recipe.json").write_text(json.dumps(saved.to_json(), indent=1) + "\n")
    except OSError as error:
        raise ValueError(
            f"{out} cannot be written ({error.strerror}); choose a folder with room and the right to write"
        ) from None


def absolute(place: str) -> str:
    """The path from the root, if it leads somewhere from here."""
    return str(Path(place).resolve()) if place and Path(place).exists() else place


def append_row(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def drop_rows_from(path: Path, epoch: int) -> None:
    """Remove the rows of epochs that are about to be trained again."""
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines[1:] if int(line.split(",")[0]) < epoch]
        path.write_text("\n".join([lines[0], *kept]) + "\n")


def quiet_lightning() -> None:
    """Leave out what Lightning tells on every start."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
