"""A network with its recipe and its data, as Lightning wants them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segue.data.batches.loading import EvaluationSamples, evaluation_loader, training_loader
from segue.data.contract import sample_name
from segue.engines.choices import FORMATS
from segue.images.pictures import Row
from segue.inference import Normalize, label_maps, resize_image, working_size
from segue.machine.progress import progress as terminal_progress
from segue.metrics import ConfusionMatrix
from segue.models.base import as_segmentation_model
from segue.recipes import Recipe
from segue.training.class_weights import class_weights
from segue.training.optimizers import freeze_norms, learning_rate_share
from segue.training.samples import fields_of, training_samples
from segue.training.splits import Splits
from segue.training.trial_step import faster_format, recipe_loss, recipe_optimizer, time_formats, to_format

PICTURED = 4  # validation samples that are shown in TensorBoard


class Task(pl.LightningModule):
    """A network with its recipe and its data, as Lightning wants them."""

    def __init__(self, recipe: Recipe, network: nn.Module, splits: Splits, first_epoch: int = 0) -> None:
        super().__init__()
        self.recipe, self.network, self.splits, self.labels = recipe, network, splits, splits.labels
        first = splits.val[0]
        self.fields = fields_of(recipe, first)
        self.normalize = Normalize(recipe.mean, recipe.std)
        self.class_weights: Tensor | None
        weights = None
        if recipe.class_weights != "none":
            weights = class_weights(splits.label_counts, recipe.class_weights, recipe.enet_c)
        self.register_buffer("class_weights", None if weights is None else torch.from_numpy(weights), persistent=False)
        supervise = as_segmentation_model(network).supervise
        self.supervise = torch.compile(supervise) if recipe.compile else supervise
        self.format: str = recipe.memory_format
        if recipe.freeze_norms:
            freeze_norms(network)
        self.first_epoch = first_epoch
        self.short_side = recipe.short_side or int(min(np.shape(first["mask"])))  # at which images are predicted
        self.matrix = ConfusionMatrix(splits.labels.names)
        self.pictured: list[Row] = []

    def setup(self, stage: str) -> None:
        """Choose the memory format on the first process, and let all others and a later resume have the same."""
        if self.format == "auto":
            strategy, recipe = self.trainer.strategy, self.recipe
            chosen = "channels_first"  # with a transform of one's own, whose images may have any size
            if self.trainer.is_global_zero and self.splits.transform is None:
                images = recipe.batch_size // recipe.accumulate // self.trainer.world_size
                chosen = faster_format(time_formats(recipe, self.network, len(self.labels), images, strategy.root_device))
            self.format = strategy.broadcast(chosen)
        to_format(self.network, self.format)

    def train_dataloader(self) -> DataLoader[Any]:
        recipe, here = self.recipe, self.trainer.world_size // self.trainer.num_nodes
        source = self.splits.decoded(recipe.cache, here, recipe.workers)
        samples = training_samples(recipe, self.network, source, len(self.labels), self.fields, self.splits.transform)
        share = self.trainer.global_rank, self.trainer.world_size
        return training_loader(samples, recipe.batch_size, recipe.workers, self.first_epoch, *share, recipe.accumulate)

    def val_dataloader(self) -> DataLoader[Any]:
        share = self.trainer.global_rank, self.trainer.world_size
        samples = EvaluationSamples(self.splits.val, len(self.labels), *share, self.fields)
        return evaluation_loader(samples, self.recipe.workers)

    def configure_optimizers(self) -> Any:
        optimizer = recipe_optimizer(self.recipe, self.network)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate_share(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate_share(self, step: int, steps: int) -> float:
        recipe = self.recipe
        return learning_rate_share(
            step, steps, schedule=recipe.schedule, warmup=recipe.warmup, epochs=recipe.epochs,
            step_epochs=recipe.step_epochs, step_factor=recipe.step_factor,
        )  # fmt: skip

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
        loss = recipe_loss(self.recipe, outputs, batch, self.class_weights)
        if not torch.isfinite(loss):
            names = ", ".join(sample_name(self.splits.train, int(index)) for index in batch["index"])
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
            self.pictured.append(Row(image, truth[0], prediction[0], sample_name(self.splits.val, int(batch["index"][0]))))

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


def is_first_process() -> bool:
    return not rank_zero_only.rank  # type: ignore[attr-defined]


def progress(description: str) -> Callable[[Any], Any]:
    """A progress bar for a sequence, on the first process alone."""
    return terminal_progress(description) if is_first_process() else iter
