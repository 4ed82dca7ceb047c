"""Which parameter learns how fast, and when."""

import pytest
import torch
from torch import nn

from segue.training.optimizers import freeze_norms, learning_rate_share, make_optimizer


def sgd(network: nn.Module, **settings: object) -> torch.optim.Optimizer:
    return make_optimizer(network, 0.1, optimizer="sgd", weight_decay=0.01, **settings)  # type: ignore[arg-type]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.old = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.new = nn.Conv2d(4, 2, 1)

    def trunk(self) -> list[nn.Module]:
        return [self.old]


def found(**settings: object) -> dict[str, tuple[float, float]]:
    """{parameter: (learning rate, weight decay)} as the optimizer has them."""
    net = Net()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = sgd(net, **settings).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_every_parameter_learns_alike_unless_told_otherwise() -> None:
    assert set(found().values()) == {(0.1, 0.01)}
    assert len(found()) == 6


def test_new_layers_biases_and_norms() -> None:
    assert found(new_layers=10, bias_rate=2, decay="weights") == {
        "old.0.weight": (0.1, 0.01),
        "old.0.bias": (0.2, 0.0),
        "old.1.weight": (0.1, 0.0),
        "old.1.bias": (0.1, 0.0),
        "new.weight": (pytest.approx(1.0), 0.01),
        "new.bias": (pytest.approx(2.0), 0.0),
    }


def test_a_network_without_a_trunk_has_no_new_layers() -> None:
    groups = sgd(nn.Conv2d(3, 2, 1), new_layers=10).param_groups
    assert [group["lr"] for group in groups] == [0.1]


def test_frozen_norms_change_in_nothing() -> None:
    net = Net().train()
    freeze_norms(net)
    before = {name: tensor.clone() for name, tensor in net.old[1].state_dict().items()}
    optimizer = sgd(net)
    net.new(net.old(torch.rand(2, 3, 4, 4))).sum().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.old[1].state_dict().items())


def test_norms_synchronised_over_devices_are_norms() -> None:
    net = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    (decayed, kept) = sgd(net, decay="weights").param_groups
    assert [decayed["weight_decay"], kept["weight_decay"]] == [0.01, 0.0]
    assert len(kept["params"]) == 3
    freeze_norms(net)
    assert not net[1].training
    assert not net[1].weight.requires_grad


def test_the_rate_falls_in_steps() -> None:
    settings = {"schedule": "step", "epochs": 10, "step_epochs": 4, "step_factor": 0.1}
    shares = [learning_rate_share(step, 100, **settings) for step in (0, 39, 40, 79, 80, 99)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_rate_rises_evenly_over_the_warm_up() -> None:
    assert [learning_rate_share(step, 100, warmup=10) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1, 1])


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer \(='lion'\) must be 'sgd', 'adam' or 'adamw'"):
        make_optimizer(Net(), 0.1, optimizer="lion")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"schedule \(='cosine'\) must be one of constant, poly, one_cycle, step"):
        learning_rate_share(0, 1, schedule="cosine")  # type: ignore[arg-type]
