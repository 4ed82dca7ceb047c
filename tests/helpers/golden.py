"""Weights, images and places that depend on names alone, so that a network can be held against outputs of another program."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLES = 200  # values that are kept of an output


def uniform(name: str, count: int) -> NDArray[np.float64]:
    """Numbers from 0 up to 1, the same for a name on every machine."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return (np.random.Philox(key=key).random_raw(count) >> np.uint64(11)) * 2.0**-53  # type: ignore[return-value]


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """A weight in float64: kernels that keep the variance of what they see, scales about 1, shifts about 0, variances above 0."""
    numbers = torch.from_numpy(uniform(name, int(np.prod(shape)))).reshape(tuple(shape))
    if len(shape) > 1:
        return (2 * numbers - 1) * (3 / numbers[0].numel()) ** 0.5
    if name.endswith(("weight", "running_var")):
        return 0.5 + numbers
    return 0.4 * numbers - 0.2


def with_named_weights(model: nn.Module) -> nn.Module:
    """The network in float64 and evaluation mode, every weight replaced by that of its name; counts of batches stay."""
    model = model.double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(weight(name, tensor.shape))
    return model


def image(channels: int, height: int, width: int) -> Tensor:
    """(1, channels, height, width) of -1 to 1."""
    return torch.from_numpy(2 * uniform("image", channels * height * width) - 1).reshape(1, channels, height, width)


def sample(output: Tensor) -> NDArray[np.float64]:
    """SAMPLES values of an output, from places all over it."""
    places = (uniform("places", SAMPLES) * output.numel()).astype(np.int64)
    return output.detach().double().flatten().numpy()[places]
