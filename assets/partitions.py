"""Partitions of the asset graph: symbols for data, units' keys for models."""

from __future__ import annotations

from dagster import StaticPartitionsDefinition

from tradewind.contracts import POOLED
from tradewind.settings import load_settings

_market = load_settings().market

symbols_partition = StaticPartitionsDefinition(list(_market.all_symbols))
"""One partition a traded or reference symbol."""

units_partition = StaticPartitionsDefinition([*_market.symbols, POOLED])
"""One partition a model key: a traded symbol, or all of them pooled."""
