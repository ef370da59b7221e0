"""Initial weights, as the code of Tanaka et al. 2020 (arXiv 2006.05467) draws them for each family of networks.

Kaiming normal: He et al. 2015 (arXiv 1502.01852), equations 10 and 14, a standard deviation of sqrt(2 / fan).
"""

from torch import nn


def fan_in_(model: nn.Module) -> None:
    """Weights of convolution and linear layers by the number of their inputs; biases zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            _zero_bias_(layer)


def fan_out_(model: nn.Module) -> None:
    """Weights of convolutions by the number of their outputs, their biases zero; linear layers stay as they are."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            _zero_bias_(layer)


def _zero_bias_(layer: nn.Conv2d | nn.Linear) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
