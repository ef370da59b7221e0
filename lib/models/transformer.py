"""A small transformer encoder for texts (Vaswani et al. 2017, arXiv 1706.03762), with the norm before each part.

Query, key, value and output are linear layers of their own, so that a head is so many rows of three of them and as
many columns of the fourth.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.models.mlp import embedded, mean_of_words

WIDTH, HEAD, BLOCKS, WIDENING = 64, 16, 2, 2


class Attention(nn.Module):
    """Self-attention with heads of width HEAD; as many as `query` has room for."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:  # (N, L, width), (N, L) -> (N, L, width)
        heads = [layer(x).unflatten(2, (-1, HEAD)).transpose(1, 2) for layer in (self.query, self.key, self.value)]
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=there[:, None, None, :])
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a feed-forward part, each added to what it gets."""

    def __init__(self, width: int):
        super().__init__()
        self.before_attention, self.attention = nn.LayerNorm(width), Attention(width)
        self.before_wide, self.wide = nn.LayerNorm(width), nn.Linear(width, WIDENING * width)
        self.narrow = nn.Linear(WIDENING * width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x), there)
        return x + self.narrow(torch.relu(self.wide(self.before_wide(x))))


class TextTransformer(nn.Module):
    """Word and position embeddings, BLOCKS blocks, the mean over the words, and a linear layer."""

    def __init__(self, length: int, words: int, classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(words - 1, width)  # number 0, where a text has ended, has none
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(BLOCKS))
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # word numbers (N, L) -> (N, classes)
        there = x > 0
        values = embedded(self.embedding, x) + self.positions[: x.shape[1]]
        for block in self.blocks:
            values = block(values, there)
        return self.fc(mean_of_words(self.norm(values), there))


def transformer(shape: tuple[int, int], classes: int) -> TextTransformer:
    """Two blocks of width 64 with four heads, for texts of (length, words); ValueError for the shape of images."""
    if len(shape) != 2:
        raise ValueError(f"an input of shape {tuple(shape)} for transformer: (length, words) of texts is allowed")
    return TextTransformer(*shape, classes, WIDTH)
