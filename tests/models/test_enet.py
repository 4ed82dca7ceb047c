"""What ENet's paper and its authors' code say of the network, beside what all networks keep."""

from torch import nn

from segue.models.enet import ENet


def test_every_norm_has_the_authors_eps() -> None:
    """ENet's batch norms have the authors' eps of .001."""
    norms = [module for module in ENet(2).modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {norm.eps for norm in norms} == {1e-3}
