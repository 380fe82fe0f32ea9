"""Ops that look back: what became of the predictions that serving logged."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from typing import Any

from dagster import OpExecutionContext, op

from assets.platform import Platform


@op(description="Realised returns of the logged predictions whose horizon has passed.")
def fill_outcomes(context: OpExecutionContext, platform: Platform) -> dict[str, Any]:
    """Store every outcome that the closed bars tell by now; a repeat adds only what is new."""
    from tradewind.ledger import fill_outcomes as fill
    from tradewind.ledger import open_clock, open_ledger
    from tradewind.market.ingest import store_for

    settings = platform.settings
    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        added = fill(settings, ledger, store_for(settings), now_ms)
    context.log.info("%d outcomes stored at market time %d", added, now_ms)
    return {"outcomes": added, "now_ms": now_ms}
