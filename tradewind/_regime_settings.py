"""The settings of the regime detector."""

from __future__ import annotations

from pydantic import Field, model_validator

from tradewind._settings_base import Section, Timeframe


class RegimeThresholds(Section):
    """Where one regime ends and another begins; any of them may differ per symbol."""

    adx_trend: float = Field(25, gt=0, le=100, description="ADX above it, EMAs aligned: a trend")
    adx_range: float = Field(20, gt=0, le=100, description="ADX below it: a range")
    high_volatility: float = Field(
        0.04, gt=0, description="ATR of sizing.risk_atr_timeframe / price above it: high volatility"
    )
    atr_ratio_high: float = Field(1.2, gt=0, description="ATR / its average of a wide range")
    breakout_range_ratio: float = Field(1.8, gt=0, description="range / its average")
    breakout_momentum: float = Field(3.0, gt=0, description="ATRs moved over momentum_bars")
    illiquid_volume_ratio: float = Field(0.25, gt=0, description="volume / its average")
    illiquid_liquidity_ratio: float = Field(
        0.25, gt=0, description="turnover per unit of range / its average"
    )

    @model_validator(mode="after")
    def _the_band_is_a_band(self) -> RegimeThresholds:
        if self.adx_range > self.adx_trend:
            raise ValueError(f"adx_range {self.adx_range} is above adx_trend {self.adx_trend}")
        return self


class RegimeSettings(Section):
    """The regime detector; bars are those of the timeframe that it looks at."""

    timeframes: tuple[Timeframe, ...] = Field(
        ("15m", "1h", "4h"),
        description="made of closed bars of market.timeframe, which is always one; finer: left out",
    )
    thresholds: RegimeThresholds = RegimeThresholds()
    symbol_thresholds: dict[str, dict[str, float]] = Field(
        {}, description='by symbol, as in {"SOLUSDT": {"high_volatility": 0.07}}'
    )
    confirm_bars: int = Field(3, ge=1, description="bars another regime must last to be believed")
    memory_bars: int = Field(64, ge=8, description="bars back that hysteresis can remember")
    warmup_bars: int = Field(
        500, ge=220, description="trailing bars of a slower timeframe behind its indicators"
    )
    average_bars: int = Field(50, ge=5, description="average of the ATR and of the range")
    range_bars: int = Field(20, ge=5, description="bars that the range is the range of")
    momentum_bars: int = Field(4, ge=1)
    volume_bars: int = Field(20, ge=1, description="bars of the present volume")
    volume_average_bars: int = Field(100, ge=5, description="bars of the usual volume")

    def of(self, symbol: str) -> RegimeThresholds:
        """Return the thresholds of one symbol."""
        own = self.symbol_thresholds.get(symbol)
        return self.thresholds if own is None else _merged(self.thresholds, own)

    @model_validator(mode="after")
    def _overrides_are_thresholds(self) -> RegimeSettings:
        for own in self.symbol_thresholds.values():
            _merged(self.thresholds, own)
        return self


def _merged(common: RegimeThresholds, own: dict[str, float]) -> RegimeThresholds:
    return RegimeThresholds.model_validate({**common.model_dump(), **own})
