"""What a person may choose when launching a run; the launchpad shows these texts."""

from __future__ import annotations

from dagster import Config
from pydantic import Field


class IngestConfig(Config):
    """Choices of an ingestion."""

    since: str | None = Field(
        default=None,
        description="UTC date (2025-01-31) from which to read; empty: resume after the last bar",
    )


class TrainingConfig(Config):
    """Choices of training one unit; empty fields take the value of the settings."""

    days_back: int | None = Field(
        default=None, ge=20, le=3650, description="Days of labelled bars up to now"
    )
    epochs: int | None = Field(
        default=None, ge=1, le=500, description="Epochs of the deep families"
    )
    seed: int | None = Field(
        default=None, ge=0, description="Seed; the same seed and data give the same model"
    )
    allow_failed_gates: bool = Field(
        default=False,
        description="Paper only: where there is no champion at all, serve the best candidate "
        "even if it misses a gate, tagged gates=failed",
    )


class RetrainConfig(TrainingConfig):
    """Choices of a retraining: which units, and how."""

    symbols: list[str] = Field(
        default_factory=list,
        description="Symbols that get a model of their own, e.g. BTCUSDT; empty: every traded "
        "symbol, pooled where the settings say so",
    )
    families: list[str] = Field(
        default_factory=list, description="Families: lightgbm, transformer; empty: all of them"
    )


class UnitsConfig(Config):
    """Which champions to look at; empty fields mean all."""

    symbols: list[str] = Field(default_factory=list, description="Symbols; empty: all")
    families: list[str] = Field(default_factory=list, description="Families; empty: all")
