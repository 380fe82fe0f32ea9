"""Dropout whose masks are cut from a pool of random numbers drawn once.

A forward pass asks one of these objects to drop, instead of calling torch's dropout:

- `NoDropout`: the plain expectation, for validation;
- `TrainingDropout`: one slice of the pool for a whole batch, the pool redrawn every epoch;
- `PassDropout`: S passes per row for Monte Carlo dropout. Each (row, pass, site) takes the
  slice of a FIXED pool that starts where a hash of (row's seed, pass, site) says. So a row's
  masks, and with them its answer, depend on its seed alone, never on its batch; and no
  random number is drawn while serving, which is where a naive pass spends its time. Slices
  of different passes may overlap in the pool, but then by a shift, so that any one unit
  still gets independent draws.

Masks hold 0 or ``1 / (1 − p)``: kept units are scaled while dropping, never at rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tradewind.models.base import IntArray

ALIGNMENT = 16
"""Slices start at multiples of this many floats: one cache line, aligned vector loads."""

GATHERED_MASK = 4096
"""Masks up to this long are gathered for all rows at once; longer ones are used in place."""


def draw_pool(size: int, dropout: float, rng: np.random.Generator) -> Tensor:
    """Return ``size`` independent mask values, float32."""
    keep = rng.random(size, dtype=np.float32) >= np.float32(dropout)
    return torch.from_numpy(keep.astype(np.float32) / np.float32(1 - dropout))


class Dropout(ABC):
    """How a network drops units; ``site`` numbers the places where it does."""

    @abstractmethod
    def hidden(self, x: Tensor, site: int) -> Tensor:
        """Return ``x`` with units dropped; may work in place."""

    @abstractmethod
    def residual(self, x: Tensor, branch: Tensor, site: int) -> Tensor:
        """Return ``x`` plus ``branch`` with units dropped; may work in place on ``x``."""

    @abstractmethod
    def steps(self, x: Tensor, site: int) -> Tensor:
        """Return ``x``, shape (B, T, h), each unit dropped at all T steps or at none.

        The dropout of recurrent networks (Gal and Ghahramani 2016).
        """

    @abstractmethod
    def spread(self, x: Tensor) -> Tensor:
        """Return ``x`` with a row for every row that the drops so far have led to."""


class NoDropout(Dropout):
    """Drop nothing."""

    def hidden(self, x: Tensor, site: int) -> Tensor:
        """Return ``x``."""
        return x

    def residual(self, x: Tensor, branch: Tensor, site: int) -> Tensor:
        """Return the sum."""
        return x + branch

    def steps(self, x: Tensor, site: int) -> Tensor:
        """Return ``x``."""
        return x

    def spread(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x


class TrainingDropout(Dropout):
    """One slice of the epoch's pool per site and step; out of place, for the gradient."""

    def __init__(self, pool: Tensor, rng: np.random.Generator) -> None:
        self.pool = pool
        self.rng = rng

    def hidden(self, x: Tensor, site: int) -> Tensor:
        """Return ``x`` with units dropped."""
        return x * self._mask(x)

    def residual(self, x: Tensor, branch: Tensor, site: int) -> Tensor:
        """Return ``x`` plus ``branch`` with units dropped."""
        return torch.addcmul(x, branch, self._mask(branch))

    def steps(self, x: Tensor, site: int) -> Tensor:
        """Return ``x`` with units dropped at all steps."""
        return x * self._mask(x[:, :1])

    def spread(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    def _mask(self, like: Tensor) -> Tensor:
        count = like.numel()
        slots = (len(self.pool) - count) // ALIGNMENT + 1
        start = int(self.rng.integers(slots)) * ALIGNMENT
        return self.pool.narrow(0, start, count).view(like.shape)


class PassDropout(Dropout):
    """Masks of rows × S passes; without gradient, in place.

    The first drop receives one row per window and returns S rows per window, row major:
    what was computed before it is shared by the passes.

    Parameters
    ----------
    pool
        Fixed mask values, shape (P,).
    starts
        Where each (row, pass, site) begins in the pool, shape (R, S, sites).
    first_site
        Sites before it drop nothing, so that all before it is shared by the passes.
    """

    def __init__(self, pool: Tensor, starts: IntArray, *, first_site: int = 0) -> None:
        self.pool = pool
        self.passes = starts.shape[1]
        self.starts = starts.reshape(-1, starts.shape[2])
        self.first_site = first_site
        self.expanded = False

    def hidden(self, x: Tensor, site: int) -> Tensor:
        """Drop units of ``x``, shape (R·S, …), in place; the first call expands (R, …)."""
        if site < self.first_site:
            return x
        x = self._expand(x)
        if x[0].numel() <= GATHERED_MASK:
            return x.mul_(self._masks(x[0].numel(), site).view(x.shape))
        for row, start in zip(x, self._starts(site), strict=True):
            row.mul_(self._mask(row, start))
        return x

    def residual(self, x: Tensor, branch: Tensor, site: int) -> Tensor:
        """Add the dropped ``branch``; the first call expands (R, …) to (R·S, …)."""
        if site < self.first_site:
            return x + branch
        if x[0].numel() <= GATHERED_MASK:
            x, branch = self._both_expanded(x, branch)
            return x.addcmul_(branch, self._masks(x[0].numel(), site).view(x.shape))
        if not self.expanded:
            return self._sum_expanded(x, branch, site)
        for row, part, start in zip(x, branch, self._starts(site), strict=True):
            row.addcmul_(part, self._mask(part, start))
        return x

    def steps(self, x: Tensor, site: int) -> Tensor:
        """Drop units of ``x``, shape (R·S, T, h), at all steps; the first call expands."""
        if site < self.first_site:
            return x
        x = self._expand(x)
        return x.mul_(self._masks(x.shape[-1], site)[:, None])

    def spread(self, x: Tensor) -> Tensor:
        """Return ``x``, shape (R, …), as (R·S, …) once passes are computed apart."""
        return x.repeat_interleave(self.passes, dim=0) if self.expanded else x

    def _expand(self, x: Tensor) -> Tensor:
        if not self.expanded:
            self.expanded = True
            return self.spread(x)
        return x

    def _both_expanded(self, x: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
        if self.expanded:
            return x, branch
        self.expanded = True
        return self.spread(x), self.spread(branch)

    def _sum_expanded(self, x: Tensor, branch: Tensor, site: int) -> Tensor:
        self.expanded = True
        out = x.new_empty((len(self.starts), *x.shape[1:]))
        for i, start in enumerate(self._starts(site)):
            row, part = x[i // self.passes], branch[i // self.passes]
            torch.addcmul(row, part, self._mask(part, start), out=out[i])
        return out

    def _starts(self, site: int) -> list[int]:
        starts: list[int] = self.starts[:, site].tolist()
        return starts

    def _mask(self, like: Tensor, start: int) -> Tensor:
        return self.pool.narrow(0, start, like.numel()).view(like.shape)

    def _masks(self, count: int, site: int) -> Tensor:
        """Return the masks of all rows, shape (R·S, count)."""
        slots = torch.from_numpy(self.starts[:, site] // ALIGNMENT).to(self.pool.device)
        return self.pool.unfold(0, count, ALIGNMENT).index_select(0, slots)


def mask_starts(
    seeds: IntArray, passes: IntArray, sites: int, *, pool_size: int, longest: int
) -> IntArray:
    """Return where each (row, pass, site) begins in a pool, shape (n, len(passes), sites).

    Parameters
    ----------
    seeds
        One seed per row, shape (n,).
    passes
        Numbers of the passes wanted: pass 3 is the same whether 4 or 400 are drawn.
    sites
        Places in the network that drop.
    pool_size, longest
        Length of the pool and of the longest mask, which must fit behind any start.
    """
    slots = np.uint64((pool_size - longest) // ALIGNMENT + 1)
    row = _scramble(seeds.astype(np.uint64))[:, None, None]
    each = _scramble(row + passes.astype(np.uint64)[None, :, None])
    place = _scramble(each + np.arange(sites, dtype=np.uint64)[None, None, :])
    return (place % slots * np.uint64(ALIGNMENT)).astype(np.int64)


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's output function of ``x`` (Steele, Lea and Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
