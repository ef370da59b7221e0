"""Beyond the range of float64: tensors that carry a power of two.

In SynFlow's linearised network activations grow by a factor in every layer: the CIFAR ResNets leave float64, which ends
at 1e308, between the depths 254 and 302, and ResNet-1202 reaches 1e1340. All functions there are positively
homogeneous, f(c x) = c f(x) for c > 0, so a power of two can be kept apart from the numbers, which stay near 1: going
forward, and so going back. It is exact, as multiplying by a power of two rounds nothing, and the derivative of the
numbers is that of the output but for one factor.
"""

from math import frexp

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -(2**40)  # exponent of zeros: below that of any number
HOMOGENEOUS = (
    "relu", "relu_", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "flatten", "view", "reshape",
    "dropout",
)  # fmt: skip


class Scaled(Tensor):
    """A tensor that stands for its numbers times 2 ** `exponent`; the largest of them lies between 1/2 and 1.

    A network takes it as it takes any image, in evaluation mode and with running means of zero, and returns one.
    ValueError for a function that is neither linear with a bias, nor a sum, nor in HOMOGENEOUS.
    """

    exponent: int = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            name = func.__name__
            if name in _OTHERS:
                return _OTHERS[name](*args, **(kwargs or {}))
            found = func(*args, **(kwargs or {}))
            if not isinstance(found, Tensor):
                return found  # a shape
            if name not in HOMOGENEOUS:
                allowed = ", ".join(dict.fromkeys((*HOMOGENEOUS, *_OTHERS)))
                raise ValueError(f"{name} of numbers beyond the range of float64: one of {allowed} is allowed there")
            return scaled(found, (*args, *(kwargs or {}).values())[0].exponent)


def scaled(numbers: Tensor, exponent: int = 0) -> Scaled:
    """`numbers` times 2 ** `exponent`, the power of their largest magnitude taken out."""
    largest = numbers.detach().abs().max().item()
    more = max(frexp(largest)[1], -1000)  # 2.0 ** 1024 is not a number
    made = (numbers * 2.0**-more).as_subclass(Scaled)
    made.exponent = exponent + more if largest else NEVER
    return made


def plain(tensor: Tensor) -> Tensor:
    """The numbers without the power of two, as an ordinary tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(Tensor)


def _sum(first: Tensor, second: Tensor) -> Scaled:
    """Both at the larger exponent; what is below the last digit of the other vanishes, as in any sum."""
    exponent = max(_exponent(first), _exponent(second))
    return scaled(sum(part * 2.0 ** (_exponent(part) - exponent) for part in (first, second)), exponent)


def _sum_(first: Scaled, second: Tensor) -> Scaled:
    """`first += second`, also where `first` is looked at again under another name."""
    if not isinstance(first, Scaled):
        raise ValueError("numbers beyond the range of float64 added in place to others: the other way is allowed there")
    found = _sum(first, second)
    first.copy_(found).exponent = found.exponent
    return first


def _exponent(tensor: Tensor) -> int:
    return tensor.exponent if isinstance(tensor, Scaled) else 0


def _linear(x: Scaled, weight: Tensor, bias: Tensor | None = None) -> Scaled:
    return _with_bias(F.linear(x, weight), x.exponent, bias)


def _conv2d(x: Scaled, weight: Tensor, bias: Tensor | None = None, *rest, **options) -> Scaled:
    return _with_bias(F.conv2d(x, weight, None, *rest, **options), x.exponent, _of_channels(bias, x))


def _batch_norm(x: Scaled, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5) -> Scaled:
    if training:
        raise ValueError("batch norm in training mode of numbers beyond the range of float64: False is allowed there")
    return _with_bias(F.batch_norm(x, mean, variance, weight, eps=eps), x.exponent, _of_channels(bias, x))


def _with_bias(numbers: Tensor, exponent: int, bias: Tensor | None) -> Scaled:
    """`bias` is not multiplied by 2 ** `exponent`."""
    product = scaled(numbers, exponent)
    return product if bias is None else _sum(product, scaled(bias))


def _of_channels(bias: Tensor | None, x: Tensor) -> Tensor | None:
    """One number for each channel, which is dimension 1 of `x`."""
    return bias if bias is None else bias.view(-1, *[1] * (x.ndim - 2))


_OTHERS = {"linear": _linear, "conv2d": _conv2d, "batch_norm": _batch_norm, "add": _sum, "add_": _sum_}
