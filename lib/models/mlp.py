"""Feed-forward networks of any depth and width, for images and for texts.

With two hidden layers of width 1024 and images of 20 x 20 pixels 1,470,474 parameters for 10 classes. A text is the
mean of the embeddings of its words, as wide as the hidden layers. torch's own initial weights.
"""

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers `layers.0`, `layers.1`, ... with ReLU between them; any (C, H, W) is flattened."""

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class TextMLP(nn.Module):
    """The mean of a text's `embedding`s, and an `MLP` on it."""

    def __init__(self, words: int, sizes: list[int]):
        super().__init__()
        self.embedding = nn.Embedding(words - 1, sizes[0])  # number 0, where a text has ended, has none
        self.layers = MLP(sizes).layers

    def forward(self, x: Tensor) -> Tensor:  # word numbers (N, L) -> (N, classes)
        x = mean_of_words(embedded(self.embedding, x), x > 0)
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def embedded(embedding: nn.Embedding, texts: Tensor) -> Tensor:
    """Word numbers (N, L) from 0 on to embeddings (N, L, width); what stands at number 0 has no meaning."""
    return embedding((texts - 1).clamp(min=0))


def mean_of_words(values: Tensor, there: Tensor) -> Tensor:
    """(N, L, width) and whether there is a word (N, L) to the mean over the words, (N, width)."""
    weights = there.to(values.dtype).unsqueeze(-1)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def mlp(shape: tuple[int, ...], classes: int, *, hidden: int, width: int) -> nn.Module:
    """`hidden` layers of `width` for images (C, H, W) or texts (length, words)."""
    sizes = [*[width] * hidden, classes]
    return TextMLP(shape[1], [width, *sizes]) if len(shape) == 2 else MLP([prod(shape), *sizes])
