"""A market, an account and a prediction that trade; each test changes what it is about."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from tradewind.contracts import Decision, Prediction, Signal, confidence, decision_id
from tradewind.settings import RiskSettings, Settings
from tradewind.trading.decide import decide
from tradewind.trading.record import SymbolRecord
from tradewind.trading.views import MarketView, PortfolioView, PositionView

# The defaults alone, without environment or file; steps coarse enough to see the rounding.
DEFAULTS = Settings.model_construct(risk=RiskSettings(quantity_step=Decimal("0.001")))
STEP_MS = 900_000
BAR_TS = 1_735_689_600_000
NOW_MS = BAR_TS + STEP_MS + 5_000
SYMBOL = "BTCUSDT"

MARKET = MarketView(
    symbol=SYMBOL,
    bar_ts=BAR_TS,
    price=90_000.0,
    atr=300.0,
    risk_atr=1_800.0,
    volatility=0.02,
    regime="neutral",
    feature_version="v1",
)
PORTFOLIO = PortfolioView(
    equity=Decimal(10_000),
    cash=Decimal(10_000),
    day_open_equity=Decimal(10_000),
    peak_equity=Decimal(10_000),
    now_ms=NOW_MS,
)


def prediction(p_up: float = 0.80, mu: float | None = None, **changes: Any) -> Prediction:
    """Return a strong, certain prediction; ``mu`` points where ``p_up`` does."""
    sign = 1 if p_up >= 0.5 else -1
    values: dict[str, Any] = {
        "symbol": SYMBOL,
        "model_type": "ensemble",
        "p_up": p_up,
        "mu": 0.01 * sign if mu is None else mu,
        "uncertainty": 0.01,
        "epistemic": 0.002,
        "aleatoric": 0.009,
        "epistemic_p": 0.01,
        "confidence": confidence(p_up),
        "conviction": 0.90,
        "signal": Signal.HOLD,
        "model_version": "tradewind.lightgbm.BTCUSDT/3",
        "bar_ts": BAR_TS,
        "staleness_s": 0.0,
        "feature_version": "v1",
    }
    return Prediction(**{**values, **changes})


def position(symbol: str = "ETHUSDT", quantity: str = "1", price: str = "100") -> PositionView:
    """Return an open position entered at `BAR_TS` with a stop 3 % away."""
    entry, size = Decimal(price), Decimal(quantity)
    distance = entry * Decimal("0.03")
    sign = 1 if size > 0 else -1
    return PositionView(
        symbol=symbol,
        quantity=size,
        entry_price=entry,
        stop_price=entry - sign * distance,
        target_price=entry + 2 * sign * distance,
        opened_ms=NOW_MS,
        initial_stop_distance=distance,
        entry_bar_ts=BAR_TS,
    )


def holding(*positions: PositionView, **changes: Any) -> PortfolioView:
    """Return the account with these positions open."""
    return replace(PORTFOLIO, open_positions={p.symbol: p for p in positions}, **changes)


def run_decide(settings: Settings, **changes: Any) -> Decision:
    """Decide with everything in favour of a trade, but for the changes."""
    values: dict[str, Any] = {
        "decision_id": decision_id("tradewind", SYMBOL, "15m", BAR_TS),
        "policy_version": "p1",
        "prediction": prediction(),
        "problem": None,
        "market": MARKET,
        "portfolio": PORTFOLIO,
        "record": SymbolRecord(),
        "source": "ensemble",
    }
    return decide(settings, **{**values, **changes})
