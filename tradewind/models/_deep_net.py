"""What every deep network is: standardised windows in, heads at the last bar out.

A family adds one module with its sizes (a `DeepShape`) and its network (a `DeepNet`);
standardising, training, Monte Carlo dropout and files are common (`_deep`, `_deep_fit`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tradewind.models._mc_dropout import Dropout

SIGMA_FLOOR = 1e-3
"""Least sigma, in units of the trailing volatility."""
START_SCALE = 0.1
"""Share of torch's initial weights at which a head starts."""


@dataclass(frozen=True)
class DeepShape(ABC):
    """Sizes of a network: ``window`` bars of ``inputs`` features, and what a family adds."""

    window: int = 128
    inputs: int = 10

    @property
    @abstractmethod
    def sites(self) -> int:
        """Return how many places drop units."""

    @property
    @abstractmethod
    def longest_mask(self) -> int:
        """Return the most mask values that one pass over one window needs at one site."""


class Heads(NamedTuple):
    """Network outputs, each of shape (rows,): direction logit, scaled mean and sigma.

    ``reversion`` is the logit of P(reversion) where a family has that head.
    """

    logit: Tensor
    mu: Tensor
    sigma: Tensor
    reversion: Tensor | None = None


class Labels(NamedTuple):
    """Targets of a batch, each of shape (rows,); ``reverted`` may hold NaN: not labelled."""

    up: Tensor
    target: Tensor
    reverted: Tensor | None = None


class DeepNet(nn.Module, ABC):
    """Standardised windows (B, W, D) to heads, one row per window.

    Under `PassDropout` there are S rows per window, row major.
    """

    learns_reversion: ClassVar[bool] = False

    def __init__(self, shape: DeepShape) -> None:
        super().__init__()
        self.shape = shape

    @abstractmethod
    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads."""


def near_base_rate(head: nn.Linear) -> nn.Linear:
    """Return ``head`` with its initial weights made small.

    Returns are mostly noise: a net that starts near the base rate does not have to unlearn first.
    The more a head reads, the further off it starts at torch's own scale.
    """
    with torch.no_grad():
        for part in head.parameters():
            part.mul_(START_SCALE)
    return head


def read_heads(out: Tensor) -> Heads:
    """Return the last dimension of ``out`` as heads; sigma is made positive by a softplus."""
    logit, mu, sigma, *more = out.unbind(dim=-1)
    return Heads(logit, mu, functional.softplus(sigma) + SIGMA_FLOOR, *more)


def losses(heads: Heads, labels: Labels) -> tuple[Tensor, ...]:
    """Return what is minimised, as means over the batch.

    First the log loss of the direction, then the Gaussian NLL of the scaled return; then,
    where there is such a head, the log loss of the reversion, in which rows without that
    label count as 0, so that batches with few of them do not weigh more.
    """
    direction = functional.binary_cross_entropy_with_logits(heads.logit, labels.up)
    returns = functional.gaussian_nll_loss(heads.mu, labels.target, heads.sigma.square())
    if heads.reversion is None or labels.reverted is None:
        return direction, returns
    known = labels.reverted.isfinite()
    reversion = functional.binary_cross_entropy_with_logits(
        heads.reversion[known], labels.reverted[known], reduction="sum"
    )
    return direction, returns, reversion / len(known)
