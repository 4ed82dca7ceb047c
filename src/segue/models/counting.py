"""Multiply-adds of a network."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(network: nn.Module, x: Tensor) -> int:
    """Those of convolutions and matrix products for an input like `x`; only its shape matters, and nothing is computed."""
    state = {name: tensor.to("meta") for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    was_training = network.training
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            torch.func.functional_call(network.eval(), state, (torch.empty_like(x, device="meta"),))
    finally:
        network.train(was_training)
    return counter.get_total_flops() // 2
