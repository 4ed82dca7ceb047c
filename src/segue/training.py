"""Training: Lightning's Trainer does the loop, and this is the only file that knows it."""

import logging
import os
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

from segue import runs
from segue.allocation import keep_freed_memory
from segue.checkpoint import Card, load_checkpoint, load_stage, read_card, save_checkpoint
from segue.data import create_dataset
from segue.data.loading import EvaluationSamples, evaluation_loader, sample_name, training_loader
from segue.data.memory import cached
from segue.data.samples import DataError
from segue.data.transforms import Transform
from segue.doctor import quick_check
from segue.engines.memory import FORMATS
from segue.inference import Normalize, label_maps, resize_image, working_size
from segue.labels import Labels
from segue.losses import supervised_loss
from segue.metrics import ConfusionMatrix
from segue.models import create_model
from segue.optimization import freeze_norms, learning_rate_share, make_optimizer
from segue.recipes import Recipe, get_recipe
from segue.report.sheet import Row, contact_sheet
from segue.steps import faster_format, float32_products, time_formats, to_format, training_samples
from segue.weights import class_weights

# What a recipe shares with the one that is trained before it.
SHARED = (
    "data", "root", "split", "batch_size", "short_side", "crop", "mean", "std", "classifier", "precision", "tf32", "compile",
    "accumulate", "memory_format", "cache", "minutes", "workers", "seed",
)  # fmt: skip
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
    resume_epoch = runs.finished_epochs(state) if resume and state.exists() else 0
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
    runs.check_fit(recipe, network, train_data)
    if staged:
        recipe = train_before(recipe, len(labels), out, resume, data)
    record = runs.training_record(recipe)
    if resume_epoch:
        record |= {key: value for key, value in read_card(out / "last")[0].training.items() if key == "started_from"}
    elif recipe.init:
        initial, card = load_checkpoint(recipe.init)
        load_stage(network, initial.state_dict(), recipe.init)
        record["started_from"] = card.training
    elif recipe.classifier:
        runs.load_classifier(network, recipe.classifier)
    network.train()
    task = Task(recipe, network, labels, train_data, val_data, transform)
    trainer = make_trainer(recipe, KeepRun(out, recipe, record, own_module=model is not None), devices, nodes)
    if len(val_data) < trainer.world_size:  # type: ignore[arg-type]
        raise DataError(
            f"the validation split has fewer samples than there are devices ({trainer.world_size}); use fewer devices"
        )
    if rank_zero_only.rank == 0 and not resume and not staged:  # type: ignore[attr-defined]
        runs.prepare_folder(out, recipe)
    task.first_epoch = resume_epoch
    if resume and recipe.memory_format == "auto":
        task.format = runs.load_recipe(out).memory_format
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
        runs.prepare_folder(out, recipe)
    folder = out.with_name(f"{out.name}-{recipe.before}")
    print(f"first {recipe.before}, in {folder}", flush=True)
    try:
        if not (folder / "recipe.json").exists():
            train(first, folder, **data)
        elif not runs.is_finished(folder):
            train(runs.load_recipe(folder), folder, resume=True, **data)
    except KeyboardInterrupt:
        print(f"and with all that follows: segue train --resume {out}", flush=True)
        raise
    return replace(recipe, init=str(folder))


class Task(pl.LightningModule):
    """A network with its recipe and its data, as Lightning wants them."""

    def __init__(
        self, recipe: Recipe, network: nn.Module, labels: Labels, train_data: Dataset[Any], val_data: Dataset[Any],
        transform: Transform | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.recipe, self.network, self.labels = recipe, network, labels
        self.train_data, self.val_data = train_data, val_data
        self.transform_samples = transform
        self.fields = runs.fields_of(recipe, val_data[0])
        self.normalize = Normalize(recipe.mean, recipe.std)
        self.class_weights: Tensor | None
        weights = class_weights(recipe, train_data, len(labels), progress("counting labels"))
        self.register_buffer("class_weights", None if weights is None else torch.from_numpy(weights), persistent=False)
        supervise: Callable[[Tensor], dict[str, Tensor]] = getattr(network, "supervise", lambda x: {"main": network(x)})
        self.supervise = torch.compile(supervise) if recipe.compile else supervise
        self.format: str = recipe.memory_format
        if recipe.freeze_norms:
            freeze_norms(network)
        self.first_epoch = 0
        self.short_side = recipe.short_side or int(min(np.shape(val_data[0]["mask"])))  # at which images are predicted
        self.matrix = ConfusionMatrix(labels.names)
        self.pictured: list[Row] = []

    def setup(self, stage: str) -> None:
        """Choose the memory format on the first process, and let all others and a later resume have the same."""
        if self.format == "auto":
            strategy, recipe = self.trainer.strategy, self.recipe
            chosen = "channels_first"  # with a transform of one's own, whose images may have any size
            if self.trainer.is_global_zero and self.transform_samples is None:
                images = recipe.batch_size // recipe.accumulate // self.trainer.world_size
                chosen = faster_format(time_formats(recipe, self.network, len(self.labels), images, strategy.root_device))
            self.format = strategy.broadcast(chosen)
        to_format(self.network, self.format)

    def train_dataloader(self) -> DataLoader[Any]:
        recipe, here = self.recipe, self.trainer.world_size // self.trainer.num_nodes
        source = cached(self.train_data, recipe.cache, here, recipe.workers)
        samples = training_samples(recipe, self.network, source, len(self.labels), self.fields, self.transform_samples)
        share = self.trainer.global_rank, self.trainer.world_size
        return training_loader(samples, recipe.batch_size, recipe.workers, self.first_epoch, *share, recipe.accumulate)

    def val_dataloader(self) -> DataLoader[Any]:
        share = self.trainer.global_rank, self.trainer.world_size
        samples = EvaluationSamples(self.val_data, len(self.labels), *share, self.fields)
        return evaluation_loader(samples, self.recipe.workers)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.recipe, self.network)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(self.recipe, step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        # Dropout depends on these numbers alone, so a resumed run repeats it.
        numbers = (self.recipe.seed, self.current_epoch, number, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        try:
            images = self.normalize(batch["image"], batch.get("depth"))
            outputs = self.supervise(images.to(memory_format=FORMATS[self.format]))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"batch_size (={self.recipe.batch_size}) must be at least 2 on each device"
                + (f" and in each of {self.recipe.accumulate} passes" if self.recipe.accumulate > 1 else "")
                + f": {self.recipe.network} has a batch norm over one value of each image"
            ) from None
        loss = supervised_loss(outputs, batch, self.recipe, self.class_weights)
        if not torch.isfinite(loss):
            names = ", ".join(sample_name(self.train_data, int(index)) for index in batch["index"])
            raise FloatingPointError(
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1} on the batch of {names}; look at these files, "
                "or lower learning_rate"
            )
        if self.recipe.loss == "sum":  # gradients are averaged over the devices and the passes
            return self.log_loss(loss * self.recipe.accumulate) * self.trainer.world_size
        return self.log_loss(loss)

    def log_loss(self, loss: Tensor) -> Tensor:
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, sync_dist=self.trainer.world_size > 1)
        return loss

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        truth = batch["mask"].cpu().numpy()
        images = self.normalize(batch["image"], batch.get("depth"))
        x = resize_image(images, working_size(self.short_side, *truth.shape[-2:]))
        prediction = label_maps(self.network, x, truth.shape[-2:]).cpu().numpy()
        self.matrix.update(truth, prediction)
        if number < PICTURED:
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
            self.pictured.append(Row(image, truth[0], prediction[0], sample_name(self.val_data, int(batch["index"][0]))))

    def on_train_epoch_start(self) -> None:
        if self.recipe.freeze_norms:  # also what Lightning put in training mode, or in place of the norms, in between
            freeze_norms(self.network)

    def on_validation_epoch_start(self) -> None:
        to_format(self.network, "channels_first")  # as a predictor has it, to the last bit
        self.matrix, self.pictured = ConfusionMatrix(self.labels.names), []

    def on_validation_epoch_end(self) -> None:
        to_format(self.network, self.format)
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
        if trainer.is_global_zero and isinstance(task, Task):
            self.record["memory_format"] = task.format
            runs.keep_format(self.out, task.format)
            runs.drop_rows_from(self.out / "metrics.csv", trainer.current_epoch + 1)

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
        runs.append_row(self.out / "metrics.csv", row)
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
            depth="depth" in task.fields,
            recipe={**recipe.to_json(), "root": "", "init": "", "classifier": Path(recipe.classifier).name},
            training=training,
            scores={f"{recipe.data} val": scores} if scores else {},
        )


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


def progress(description: str) -> Callable[[Any], Any]:
    """A progress bar for a sequence, on the first process, gone when it is done."""
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return iter
    return lambda sequence: track(sequence, description, transient=True, disable=not sys.stdout.isatty())


def quiet_lightning() -> None:
    """Leave out what Lightning tells on every start."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen norms
