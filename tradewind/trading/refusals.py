"""What each refusal means and how it ends; the table of the guide is made from it.

``python -m tradewind.trading.refusals`` prints the table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from tradewind.contracts import RefusalCode


@dataclass(frozen=True)
class Refusal:
    """A code in words: what was found, and what ends it."""

    meaning: str
    way_back: str


REFUSALS: Final[dict[RefusalCode, Refusal]] = {
    RefusalCode.BELOW_THRESHOLD: Refusal(
        "The more probable side does not reach the adaptive entry threshold.",
        "A clearer prediction on a later bar.",
    ),
    RefusalCode.TOO_UNCERTAIN: Refusal(
        "`epistemic_p` is above `serving.epistemic_p_limit`: passes or members disagree.",
        "Agreement on a later bar; a retrained model.",
    ),
    RefusalCode.NO_CONSENSUS: Refusal(
        "The ensemble's members oppose each other, or none of them has shown any skill.",
        "Agreement on a later bar; a retrained model.",
    ),
    RefusalCode.LOW_CONVICTION: Refusal(
        "Conviction is below the minimum of the present risk mode.",
        "A stronger prediction, or a milder mode.",
    ),
    RefusalCode.NO_EDGE: Refusal(
        "The expected return does not pay fees, slippage and funding.",
        "A greater expected move; lower costs. Switch: `engine.require_edge`.",
    ),
    RefusalCode.POSITION_OPEN: Refusal(
        "The symbol already has a position; there is one a symbol.", "The position is closed."
    ),
    RefusalCode.MAX_POSITIONS: Refusal(
        "`risk.max_positions` positions are open.", "One of them is closed."
    ),
    RefusalCode.DAILY_LOSS: Refusal(
        "The day's drawdown is above `risk.daily_loss` (or CRITICAL takes no entries).",
        "The next UTC day; from EMERGENCY_SHUTDOWN a person.",
    ),
    RefusalCode.DRAWDOWN: Refusal(
        "Equity is further below its peak than `risk.peak_drawdown`.",
        "Equity recovers, or a person resets the peak.",
    ),
    RefusalCode.EXPOSURE: Refusal(
        "No room under `risk.symbol_exposure` or `risk.total_exposure`.",
        "Positions are reduced, or equity grows.",
    ),
    RefusalCode.ORDER_NOTIONAL: Refusal(
        "The order is larger than `risk.max_order_notional`.",
        "A smaller order; a person raises the setting.",
    ),
    RefusalCode.LEVERAGE: Refusal(
        "The order's leverage is above `risk.leverage_cap`.", "An order within the cap."
    ),
    RefusalCode.SIZE_ZERO: Refusal(
        "The size is less than one `risk.quantity_step`.",
        "More confidence or more equity; a finer step.",
    ),
    RefusalCode.BELOW_MIN_NOTIONAL: Refusal(
        "The order is worth less than `risk.min_notional`.", "More confidence or more equity."
    ),
    RefusalCode.KELLY_NEGATIVE: Refusal(
        "The symbol's own closed trades have no positive expectation (Kelly at or below zero).",
        "Old losses leave the record after `sizing.record_days`. Switch: `sizing.kelly`.",
    ),
    RefusalCode.NO_EXIT_PLAN: Refusal(
        "No stop and target can stand: nearer than the fees, beyond zero, or lost in a tick.",
        "A usable risk ATR; a finer `risk.price_tick`.",
    ),
    RefusalCode.STALE_DATA: Refusal(
        "The next bar is later than `serving.staleness_limit_s`.", "Fresh bars arrive."
    ),
    RefusalCode.MISSING_PREDICTION: Refusal(
        "Serving gave no prediction for the bar, or its fallback is switched off.",
        "The next answer.",
    ),
    RefusalCode.BAD_PREDICTION: Refusal(
        "The prediction holds NaN, a value out of range, or a bar that has not closed.",
        "The next good answer; look at the model and at the clock.",
    ),
    RefusalCode.FEATURE_MISMATCH: Refusal(
        "Features and prediction are of different bars, symbols, regimes or feature versions.",
        "The features of the prediction's bar; a rebuilt feature store.",
    ),
    RefusalCode.BAD_FEATURES: Refusal(
        "Price, ATR, volatility or regime is NaN, not positive, or unknown.",
        "Features that are numbers; look at the bars.",
    ),
    RefusalCode.SERVING_DOWN: Refusal(
        "Serving could not be reached or was overloaded.", "Serving answers again."
    ),
    RefusalCode.MODEL_EXPIRED: Refusal(
        "The champion is older than `registry.model_expiry_days`.",
        "A retraining; a younger version promoted.",
    ),
    RefusalCode.SYMBOL_DISABLED: Refusal(
        "`risk.record_disable_streak` losses in a row disabled the symbol.",
        "After `risk.record_disable_hours`.",
    ),
    RefusalCode.KILL_SWITCH: Refusal("The kill switch is on.", "A person lifts it."),
    RefusalCode.NO_MARGIN: Refusal(
        "Open positions already use the free margin.", "Positions are closed, or cash is added."
    ),
    RefusalCode.UNKNOWN_SYMBOL: Refusal(
        "Serving or the broker does not know the symbol.", "A symbol of the set; a trained model."
    ),
    RefusalCode.OUT_OF_RANGE: Refusal(
        "An input lies outside the range that the model was trained on (`serving.ranges`).",
        "Inputs within it again; a model retrained on such bars. "
        "Switch: `engine.require_in_range`.",
    ),
    RefusalCode.LATE: Refusal(
        "The intent was not sent in time, and is never sent later.", "The next bar's decision."
    ),
}


def refusal_table() -> str:
    """Return the Markdown table of every refusal code, in the order of the enumeration."""
    rows = ["| code | found | ends with |", "| --- | --- | --- |"]
    for code in RefusalCode:
        known = REFUSALS[code]
        rows.append(f"| `{code.value}` | {known.meaning} | {known.way_back} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(refusal_table())
