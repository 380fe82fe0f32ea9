"""The transformer as a network: windows in, heads out, no training and no files.

Pre-norm encoder over all bars of a window (they are all past). Only the last bar's token is
read, so the last layer computes one query; and there is no dropout on attention
probabilities, so the first layer's attention does not depend on masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tradewind.models._deep_net import DeepNet, DeepShape, Heads, near_base_rate, read_heads
from tradewind.models._mc_dropout import Dropout

SITES_PER_LAYER = 3
"""After attention, inside the feed-forward, after the feed-forward."""


@dataclass(frozen=True)
class NetShape(DeepShape):
    """Sizes of the transformer."""

    d_model: int = 128
    heads: int = 4
    layers: int = 3
    feedforward: int = 512

    @property
    def sites(self) -> int:
        """Return how many places drop units."""
        return self.layers * SITES_PER_LAYER

    @property
    def last_layer_site(self) -> int:
        """Return the first place of the last layer that drops units."""
        return self.sites - SITES_PER_LAYER

    @property
    def longest_mask(self) -> int:
        """Return the most mask values that one pass over one window needs at one site."""
        return self.window * max(self.d_model, self.feedforward)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward, both behind a layer norm."""

    def __init__(self, d_model: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.merge = nn.Linear(d_model, d_model)
        self.feedforward_norm = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, feedforward)
        self.down = nn.Linear(feedforward, d_model)

    def attend(self, x: Tensor, *, last_only: bool) -> Tensor:
        """Return the attention branch for all tokens of (B, W, d), or for the last: (B, 1, d)."""
        normed = self.attention_norm(x)
        if last_only:
            d = x.shape[-1]
            query = functional.linear(normed[:, -1:], self.qkv.weight[:d], self.qkv.bias[:d])
            memory = functional.linear(normed, self.qkv.weight[d:], self.qkv.bias[d:])
            key, value = memory.chunk(2, dim=-1)
        else:
            query, key, value = self.qkv(normed).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value)
        )
        merged: Tensor = self.merge(mixed.transpose(1, 2).flatten(2))
        return merged

    def _split(self, x: Tensor) -> Tensor:
        """Return (B, T, d) as (B, heads, T, d / heads)."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, dropout: Dropout, site: int, *, last_only: bool) -> Tensor:
        """Return the layer's output for all tokens, or for the last one only."""
        branch = self.attend(x, last_only=last_only)
        x = dropout.residual(x[:, -1:] if last_only else x, branch, site)
        up = self.up(self.feedforward_norm(x))
        # In place on a linear layer's output, the gradient would be copied twice.
        hidden = functional.relu(up, inplace=not torch.is_grad_enabled())
        return dropout.residual(x, self.down(dropout.hidden(hidden, site + 1)), site + 2)


class TransformerNet(DeepNet):
    """Encoder over all bars of the window, read at the last one."""

    position: Tensor

    def __init__(self, shape: NetShape) -> None:
        super().__init__(shape)
        self.project = nn.Linear(shape.inputs, shape.d_model)
        self.register_buffer("position", positions(shape.window, shape.d_model), persistent=False)
        self.layers = nn.ModuleList(
            EncoderLayer(shape.d_model, shape.heads, shape.feedforward) for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.d_model)
        self.heads = near_base_rate(nn.Linear(shape.d_model, 3))

    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads, one row per window, or S per window under `PassDropout`."""
        x = self.project(windows) + self.position
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            x = layer(x, dropout, number * SITES_PER_LAYER, last_only=last)
        return read_heads(self.heads(self.norm(x[:, -1])))


def positions(window: int, d_model: int) -> Tensor:
    """Return the sinusoidal positional encoding, shape (window, d_model)."""
    place = torch.arange(window, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
    encoding = torch.empty(window, d_model)
    encoding[:, 0::2] = torch.sin(place * rate)
    encoding[:, 1::2] = torch.cos(place * rate)
    return encoding
