"""A pruned network without its dead channels: the same function, computed by smaller dense layers.

Masks of single weights leave channels (output channels of a convolution, units of a linear layer) that do nothing:
those without a kept weight before them have the same value for every image, and those without one behind them
reach nothing. Dense kernels compute them all the same. Here they are removed, without any approximation: the
constant is not zero (bias, batch norm), so what it adds to the next layer becomes part of that layer's bias. Where
the next layer pads its input with zeros this differs from position to position near the border, and the bias is a
map over the image. The idea is that of Bragagnolo and Barbano 2022 ("Simplify: A Python library for optimizing pruned
neural networks", SoftwareX 17).
"""

import copy
import operator
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from lib import flops
from lib.compiling import first_line
from lib.inference import folded
from lib.masks import Masks, apply_masks_

# What may stand between two layers: operations that map every channel by itself.
MODULES = (
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Dropout2d, nn.ELU, nn.GELU, nn.Hardswish,
    nn.Identity, nn.LeakyReLU, nn.MaxPool2d, nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Tanh,
)  # fmt: skip
FUNCTIONS = (
    torch.relu, torch.sigmoid, torch.tanh, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.avg_pool2d, F.elu, F.gelu,
    F.hardswish, F.leaky_relu, F.max_pool2d, F.relu, F.relu6, F.silu, F.softplus,
)  # fmt: skip
METHODS = ("contiguous", "relu", "relu_", "sigmoid", "tanh")


class Chain(NamedTuple):
    """Layer `before`, whose output goes through `steps` to layer `behind` and nowhere else."""

    before: fx.Node
    steps: list[fx.Node]
    behind: fx.Node


class Constant(nn.Module):
    """What is left of a layer without weights: the same output for every image."""

    def __init__(self, value: Tensor):  # (1, ...)
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, images: Tensor) -> Tensor:
        # a copy, since what follows may work in place
        return self.value.expand(images.shape[0], *self.value.shape[1:]).clone()


@torch.no_grad()
def compact(model: nn.Module, masks: Masks, shape: tuple[int, int, int]) -> tuple[nn.Module, dict]:
    """A new module that computes, up to rounding, what `model` with permanent masks computes, and facts about it.

    The new module is for inference of images of `shape` (C, H, W) only: in evaluation mode, batch norm folded, no
    gradients. Channels are removed between a convolution or linear layer and the next one when only batch norm,
    activations, pooling, dropout or flattening stand between them. Everything else is left as it is: channels that
    enter a sum (but a layer without any weight becomes its constant there, too), the network's inputs, grouped
    convolutions, layers called more than once, what stands before `view` or `reshape`, and all of a network that
    torch.fx cannot trace.

    Facts: `layers`, a row for each layer (`layer`, `channels`, `removed`, `constant`: nothing is left but its
    bias), `channels` and `channels_removed` over all of them, `macs_dense` and `macs_compact` of one image, both for
    dense kernels, and `why` (one line where the network could not be traced, else None).
    """
    device = next(model.parameters()).device
    dense = _macs(model, shape)
    facts = {"layers": [], "channels": 0, "channels_removed": 0, "macs_dense": dense, "macs_compact": dense}
    masked = copy.deepcopy(model)
    apply_masks_(masked, masks)
    try:
        network = folded(masked.double())  # float64: constants pass many layers before they are rounded once
    except Exception as error:  # whatever symbolic_trace meets in a forward that it cannot trace
        return _finished(masked, model), facts | {"why": first_line(error)}
    rows = _compact_(network, torch.zeros(2, *shape, dtype=torch.float64, device=device))
    network = _finished(network, model)
    removed = {
        "channels": sum(row["channels"] for row in rows),
        "channels_removed": sum(row["removed"] for row in rows),
    }
    return network, facts | {"layers": rows, "macs_compact": _macs(network, shape), **removed, "why": None}


def _compact_(network: fx.GraphModule, images: Tensor) -> list[dict]:
    """Remove the dead channels in place, for images like these; a row for each layer that was analysed."""
    shapes = _shapes(network, images)
    layers = _layers(network, shapes)
    chains = _chains(network, layers, shapes)
    weights = {node: layer.weight.clone(memory_format=torch.contiguous_format) for node, layer in layers.items()}
    biases = {node: _bias(layer) for node, layer in layers.items()}
    while sum(_settle(network, chain, layers, weights, biases, shapes) for chain in chains):
        pass  # a channel removed here may leave others without weights before or behind them
    alive = {node: _alive(weight) for node, weight in weights.items()}
    outputs = {chain.before: alive[chain.before] for chain in chains}
    inputs = {chain.behind: alive[chain.before] for chain in chains}
    for chain in chains:
        _shrink_steps(network, chain, alive[chain.before])
    for node, layer in layers.items():
        bias = biases[node]
        if alive[node].any():
            _shrink_layer(layer, weights[node], inputs.get(node), outputs.get(node))
            _set_bias(network, node, layer, bias[:, outputs[node]] if node in outputs else bias)
        else:
            _replace_by_constant(network, node, bias.expand(1, *shapes[node][1:]))
    network.delete_all_unused_submodules()
    network.graph.lint()
    network.recompile()
    return [_row(node.target, alive[node], node in outputs) for node in layers]


def _macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Those of dense kernels; `flops` sends a float32 image."""
    left = any(True for _ in network.parameters())
    return flops.macs(copy.deepcopy(network).float(), shape)["macs_dense"] if left else 0


def _finished(network: nn.Module, model: nn.Module) -> nn.Module:
    """`network` for inference, in the type and memory layout of `model`."""
    first = next(model.parameters())
    return network.requires_grad_(False).to(dtype=first.dtype, memory_format=layout(model)).eval()


def layout(model: nn.Module) -> torch.memory_format:
    """How the weights of its convolutions lie in memory."""
    last = any(parameter.ndim == 4 and not parameter.is_contiguous() for parameter in model.parameters())
    return torch.channels_last if last else torch.contiguous_format


def _shapes(network: fx.GraphModule, images: Tensor) -> dict[fx.Node, torch.Size]:
    """The shape of every tensor on the way of `images` through the network."""
    # not torch.fx's ShapeProp, whose first use imports for 1.6 s
    interpreter = fx.Interpreter(network, garbage_collect_values=False)
    interpreter.run(images)
    return {node: value.shape for node, value in interpreter.env.items() if isinstance(value, Tensor)}


def _layers(network: fx.GraphModule, shapes: dict) -> dict[fx.Node, nn.Conv2d | nn.Linear]:
    """The layers that can be analysed, in order: called once, channels in dimension 1, no groups."""
    modules = dict(network.named_modules())
    calls = [node.target for node in network.graph.nodes if node.op == "call_module"]
    read = [node.target for node in network.graph.nodes if node.op == "get_attr"]
    found = {}
    for node in network.graph.nodes:
        layer = modules.get(node.target) if node.op == "call_module" else None
        conv = type(layer) is nn.Conv2d and layer.groups == 1 and len(shapes[node]) == 4
        linear = type(layer) is nn.Linear and len(shapes[node]) == 2
        shared = calls.count(node.target) > 1 or any(name.startswith(f"{node.target}.") for name in read)
        if (conv or linear) and not shared and len(node.args) == 1:
            found[node] = layer
    return found


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The bias as it is added to an output, (1, C, 1, 1) or (1, C); the layer is left without one."""
    bias = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
    layer.bias = None
    return bias.view(1, -1, *[1] * (layer.weight.ndim - 2))


def _chains(network: fx.GraphModule, layers: dict, shapes: dict) -> list[Chain]:
    found = []
    for before in layers:
        steps, node = [], before
        while len(node.users) == 1:
            node, previous = next(iter(node.users)), node
            if node.all_input_nodes != [previous] or node.args[:1] != (previous,):
                break
            if node in layers:
                found.append(Chain(before, steps, node))
                break
            if not _by_channel(network, node, shapes):
                break
            steps.append(node)
    return found


def _by_channel(network: fx.GraphModule, node: fx.Node, shapes: dict) -> bool:
    """Whether this operation with one input maps every channel by itself, all images alike."""
    if node not in shapes:
        return False
    before, after = shapes[node.args[0]], shapes[node]
    if node.op == "call_module":
        module = network.get_submodule(node.target)
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            once = sum(other.target == node.target for other in network.graph.nodes) == 1
            return once and module.running_mean is not None
        return type(module) in MODULES or (type(module) is nn.Flatten and _flat(before, after))
    if node.target in (torch.flatten, "flatten"):
        return _flat(before, after)
    if node.target in (torch.mean, "mean"):
        dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return len(before) == 4 and isinstance(dims, tuple | list) and {d % 4 for d in dims} == {2, 3}
    if node.target is F.dropout:
        return node.kwargs.get("training") is False
    return node.target in FUNCTIONS or node.target in METHODS


def _flat(before: torch.Size, after: torch.Size) -> bool:
    return tuple(after) == (before[0], prod(before[1:]))


def _alive(weight: Tensor) -> Tensor:
    """Which output channels have a weight, as bools (C,)."""
    return weight.flatten(1).any(1)


def _settle(network: fx.GraphModule, chain: Chain, layers: dict, weights: dict, biases: dict, shapes: dict) -> bool:
    """Set to zero what the channels between two layers do not need; whether there was any such weight.

    Channels without weights before them lose those behind them, which become bias, and the other way round.
    """
    alive = _alive(weights[chain.before])
    # (outputs, channels, weights of one pair): a channel has several even in a linear layer, if it was flattened
    behind = weights[chain.behind].view(len(weights[chain.behind]), len(alive), -1)
    heard = behind.any(2).any(0)
    constant = ~alive & heard
    if constant.any():
        images = biases[chain.before].expand(1, *shapes[chain.before][1:]).clone()
        weight = (behind * constant[:, None]).view_as(weights[chain.behind])
        added = functional_call(layers[chain.behind], {"weight": weight}, (_through(network, chain.steps, images),))
        biases[chain.behind] = biases[chain.behind] + added
        behind[:, constant] = 0
    weights[chain.before][alive & ~heard] = 0
    return bool((alive != heard).any())


def _through(network: fx.GraphModule, steps: list[fx.Node], x: Tensor) -> Tensor:
    for node in steps:
        if node.op == "call_module":
            x = network.get_submodule(node.target)(x)
        elif node.op == "call_method":
            x = getattr(x, node.target)(*node.args[1:], **node.kwargs)
        else:
            x = node.target(x, *node.args[1:], **node.kwargs)
    return x


def _shrink_steps(network: fx.GraphModule, chain: Chain, alive: Tensor) -> None:
    """Leave the channels `alive` to the batch norms between two layers."""
    for node in chain.steps:
        norm = network.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            kept = _spread(alive, norm.num_features)
            for name, value in list(norm.named_parameters()):
                setattr(norm, name, nn.Parameter(value[kept]))
            for name, value in list(norm.named_buffers()):
                if value.ndim:
                    setattr(norm, name, value[kept])
            norm.num_features = int(kept.sum())


def _shrink_layer(layer: nn.Conv2d | nn.Linear, weight: Tensor, inputs: Tensor | None, outputs: Tensor | None) -> None:
    """Give the layer those of `weight` that lie between the channels in use; None means all of them."""
    if inputs is not None:
        weight = weight[:, _spread(inputs, weight.shape[1])]
    if outputs is not None:
        weight = weight[outputs]
    layer.weight = nn.Parameter(weight)
    names = ("out_channels", "in_channels") if isinstance(layer, nn.Conv2d) else ("out_features", "in_features")
    for name, size in zip(names, weight.shape, strict=False):
        setattr(layer, name, size)


def _spread(alive: Tensor, features: int) -> Tensor:
    """Bools of channels as bools of the features that flattening makes of them."""
    return alive.repeat_interleave(features // len(alive))


def _set_bias(network: fx.GraphModule, node: fx.Node, layer: nn.Conv2d | nn.Linear, bias: Tensor) -> None:
    """Give the layer its bias (1, C, ...): a vector where it is the same at all positions, else a map to be added."""
    flat = bias.flatten(2) if bias.ndim == 4 else bias[..., None]
    low, high = flat.aminmax(dim=2)
    # the same sum taken at two positions differs by rounding only, in float64
    if (high - low <= 1e-12 * flat.abs().amax(2)).all():
        layer.bias = nn.Parameter(flat[0, :, 0].clone())
        return
    layer.register_buffer("bias_map", bias)
    with network.graph.inserting_after(node):
        values = network.graph.get_attr(f"{node.target}.bias_map")
    with network.graph.inserting_after(values):
        added = network.graph.call_function(operator.add, (node, values))
    node.replace_all_uses_with(added, delete_user_cb=lambda user: user is not added)


def _replace_by_constant(network: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    images = next(other for other in network.graph.nodes if other.op == "placeholder")
    network.set_submodule(node.target, Constant(value.clone()))
    with network.graph.inserting_before(node):
        constant = network.graph.call_module(node.target, (images,))
    node.replace_all_uses_with(constant)
    _erase(network.graph, node)


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Remove a node without users, and those before it that lose their last one."""
    # graph.eliminate_dead_code would take operations in place with it whose result is not used
    before = {node}
    for other in reversed(list(graph.nodes)):
        if other in before and not other.users and other.op != "placeholder":
            before.update(other.all_input_nodes)
            graph.erase_node(other)


def _row(name: str, alive: Tensor, shrinks: bool) -> dict:
    constant = not bool(alive.any())
    removed = int((~alive).sum()) if shrinks or constant else 0
    return {"layer": name, "channels": len(alive), "removed": removed, "constant": constant}
