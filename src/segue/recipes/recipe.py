"""What a recipe is: everything that decides how a training goes."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from segue.suggest import did_you_mean


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a training goes. `segue train RECIPE --field value` overrides any of it."""

    network: str
    """A network of `segue models`."""
    data: str
    """A data set of `segue data`."""
    epochs: int
    """Passes over the training split."""
    batch_size: int
    """Images a step of the optimizer, over all devices and all its passes together."""
    learning_rate: float
    """The largest one, where the schedule varies it."""

    root: str = ""
    """The folder of the data set."""
    split: str = "train"
    """The split that is trained on, such as voc's train_aug."""
    options: dict[str, bool | int | str] = field(default_factory=dict)
    """Options of the network by name, such as padding same."""
    init: str = ""
    """A checkpoint whose weights to start from."""
    before: str = ""
    """A recipe that is trained first, and from whose best checkpoint this one starts, unless `init` is given. Its data, batches,
    crops, classifier and minutes are this one's; for other epochs or rates, train it by itself and name its folder as init."""
    classifier: str = ""
    """ImageNet weights for the trunk of a network that does not start from `init`: imagenet downloads them; or a .pth or
    .safetensors file."""
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    """Weight decay is added to the gradient in sgd and adam, and is decoupled in adamw."""
    momentum: float = 0.9
    """Of sgd; the first beta of the others."""
    weight_decay: float = 0.0
    decay: Literal["all", "weights"] = "all"
    """Which parameters decay; weights leaves out biases and norms."""
    new_layers: float = 1.0
    """Learning rate of the layers that do not come from a classifier, as a multiple."""
    bias_rate: float = 1.0
    """Learning rate of biases, as a multiple."""
    freeze_norms: bool = False
    """Batch norms keep the statistics, scales and shifts that they start with."""
    schedule: Literal["constant", "poly", "one_cycle", "step"] = "constant"
    """poly: (1 - progress)^0.9. one_cycle: up by a cosine for the first 15 %, then down to nothing by another. step: times
    `step_factor` after every `step_epochs`."""
    step_epochs: int = 1
    step_factor: float = 0.1
    warmup: int = 0
    """Steps at the start in which the rate rises evenly from nothing."""
    loss: Literal["mean", "sum", "weights", "ohem", "absolute"] = "mean"
    """What the summed cross entropy is divided by: the pixels that count (mean), nothing (sum), the weights of the pixels that
    count (weights). ohem: the mean over hard pixels alone. absolute: the error of the probabilities in place of cross entropy."""
    auxiliary: float = 1.0
    """Weight of each auxiliary output, beside 1 of the main one."""
    border: float = 0.1
    """Weight of each output that draws the borders of the classes (DFN)."""
    border_weights: bool = False
    """Add U-Net's weights between touching instances (w0 = 10, sigma = 5 pixels)."""
    class_weights: Literal["none", "median_frequency", "enet"] = "none"
    """none; SegNet's median frequency; ENet's 1 / ln(enet_c + share)."""
    enet_c: float = 1.02
    short_side: int = 0
    """Pixels of the shorter side to which images are resized, in training and for predictions; 0 leaves training images as they
    are."""
    crop: tuple[int, int] = (360, 480)
    """Height and width of the training crops, in pixels."""
    scale: tuple[float, float] = (1.0, 1.0)
    """The smallest and the largest random scale."""
    flip: bool = True
    """Mirror half of the training images."""
    jitter: float = 0.0
    """Random brightness, contrast and saturation, as a share."""
    objects: bool = False
    """Each crop is the box of one object, 1.2 times as large, in which all else is background
    (DeconvNet's first stage); class 0 must be the background."""
    rotate: float = 0.0
    """Largest random rotation to either side, in degrees."""
    elastic: float = 0.0
    """Standard deviation, in pixels, of the random shifts of a coarse 3x3 grid that bend the picture (U-Net: 10)."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Subtracted from each channel, whose values are 0 to 1. One number more than the image has channels: the data's depth, in
    metres, is the last channel."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Each channel is then divided by this."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's name of the floating-point precision. bf16-mixed: convolutions and products in bfloat16, the weights and the
    loss in float32."""
    tf32: bool = True
    """On a GPU, products of float32 numbers are taken of 10 bits of each (TF32), in a fraction of the time; a CPU has no such."""
    compile: bool = False
    """Compile the network with torch.compile: minutes at the start, then faster steps. It needs a C++ compiler."""
    accumulate: int = 1
    """Passes into which each batch is divided, to use less memory: their gradients are added before the optimizer takes its step,
    so batch_size, rates and epochs mean the same. Batch norm sees the images of one pass alone, and a loss that is averaged is
    so over each pass, then over the passes."""
    memory_format: Literal["auto", "channels_first", "channels_last"] = "auto"
    """How feature maps lie in memory, which decides the speed. auto: as measured before the first epoch, and kept for the run;
    what is computed differs in rounding, so to repeat a run to the last bit name the one that its recipe.json does."""
    cache: Literal["auto", "memory", "none"] = "auto"
    """Whether decoded training images are kept in memory for the next epochs, once for all workers of a device. auto: where the
    whole split takes at most half of the memory that is free. The training is the same either way."""
    validate_every: int = 1
    """Epochs between two scorings of the validation split; the last of all `epochs` is always scored."""
    minutes: float = 0.0
    """Stop after the epoch in which so many minutes of training are over; 0 sets no limit."""
    workers: int = 2
    """Processes that load data, for each device."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "validate_every", "step_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} (={getattr(self, name)}) must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate (={self.accumulate}) must divide batch_size (={self.batch_size})")
        rates = ("learning_rate", "momentum", "weight_decay", "new_layers", "bias_rate")
        for name in (*rates, "warmup", "short_side", "minutes", "workers", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} (={getattr(self, name)}) must not be negative")
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean (={self.mean}) and std (={self.std}) must have one number for each channel")
        if 0 in self.std:
            raise ValueError(f"std (={self.std}) must not be 0: images are divided by it")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Recipe":
        """The recipe of a saved dict; ValueError for a field that recipes do not have."""
        for name in fields:
            if name not in cls.__dataclass_fields__:
                raise ValueError(f'no recipe field "{name}"{did_you_mean(name, cls.__dataclass_fields__)}')
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        return cls(**values)
