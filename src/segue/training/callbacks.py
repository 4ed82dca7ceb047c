"""What is written after each epoch of a training."""

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from segue.checkpoint import Card, save_checkpoint
from segue.images.pictures import contact_sheet
from segue.machine.replacing import replacing
from segue.recipes import Recipe
from segue.training.run_folder import append_row, drop_rows_from, keep_format
from segue.training.task import Task


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
            keep_format(self.out, task.format)
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
            with replacing(self.out / "resume.ckpt") as new:
                trainer.save_checkpoint(new)  # which the first process alone writes
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
            depth="depth" in task.fields,
            recipe={**recipe.to_json(), "root": "", "init": "", "classifier": Path(recipe.classifier).name},
            training=training,
            scores={f"{recipe.data} val": scores} if scores else {},
        )
