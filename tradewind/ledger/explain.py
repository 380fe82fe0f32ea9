"""One decision as a story: what was predicted, why, what was sent, what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from tradewind.contracts import Decision, Reason
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.database import Database
from tradewind.ledger.schema import (
    decisions,
    fills,
    intents,
    orders,
    outcomes,
    positions,
    predictions,
    trades,
)

SHORTEST_PREFIX = 6
LATEST = "latest"


def utc(ms: int) -> str:
    """Return a time as a person reads it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _figure(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else str(value)


def _load(connection: Connection, wanted: str) -> Decision:
    query = select(decisions.c.body).where(decisions.c.decision_id == wanted)
    if wanted == LATEST:
        newest = (decisions.c.bar_ts.desc(), decisions.c.created_ms.desc(), decisions.c.symbol)
        query = select(decisions.c.body).order_by(*newest).limit(1)
    bodies = connection.execute(query).scalars().all()
    if not bodies and len(wanted) >= SHORTEST_PREFIX:
        starts = select(decisions.c.body).where(
            decisions.c.decision_id.startswith(wanted, autoescape=True)
        )
        bodies = connection.execute(starts.limit(2)).scalars().all()
    if len(bodies) != 1:
        what = "is not in the ledger" if not bodies else "begins more than one decision's id"
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"decision {wanted!r} {what}",
            "Give an id from the decisions table, its first 6 characters, or `latest`",
        )
    return Decision.model_validate_json(bodies[0])


def _told(reason: Reason) -> str:
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in reason.figures.items())
    mark = f" [{reason.code.value}]" if reason.code else ""
    return f"{reason.step}: {reason.text}{mark}" + (f" ({figures})" if figures else "")


def _predictions(connection: Connection, decision: Decision) -> list[str]:
    lines = []
    given = decision.prediction
    if given is None:
        lines.append("none was used")
    else:
        lines.append(
            f"{given.model_type} {given.model_version} ({given.served_by}): "
            f"p_up {given.p_up:.4f}, mu {given.mu:+.6f}, epistemic_p {given.epistemic_p:.4f}, "
            f"conviction {given.conviction:.2f}, {given.signal.value}, regime {given.regime}"
        )
        lines.extend(
            f"vote {vote.family} {vote.model_version}: {vote.action.value}, "
            f"p_up {vote.p_up:.4f}, weight {vote.weight:.2f}"
            for vote in given.votes
        )
    query = (
        select(predictions)
        .where(predictions.c.decision_id == decision.decision_id)
        .order_by(predictions.c.id)
    )
    lines.extend(
        f"logged by serving as {row.role}: {row.model_type} {row.model_version}, "
        f"p_up {row.p_up:.4f}, {row.latency_ms:.0f} ms"
        for row in connection.execute(query)
    )
    return lines


def _orders(connection: Connection, decision: Decision) -> list[str]:
    query = (
        select(
            intents,
            orders.c.status.label("order_status"),
            orders.c.detail.label("order_detail"),
        )
        .outerjoin(orders, orders.c.client_id == intents.c.client_id)
        .where(intents.c.decision_id == decision.decision_id)
        .order_by(intents.c.position, intents.c.created_ms)
    )
    lines = []
    for row in connection.execute(query):
        trigger = f" at {row.trigger_price}" if row.trigger_price is not None else ""
        why = f" because {row.reason}" if row.reason else ""
        state = row.order_status or f"never sent, intent {row.status}"
        detail = row.order_detail or row.detail
        told = f" ({detail})" if detail else ""
        lines.append(
            f"{row.leg}: {row.side} {row.quantity} {row.symbol} {row.type}{trigger}{why}: "
            f"{state}{told} [{row.client_id}]"
        )
    return lines or ["none"]


def _fills(connection: Connection, decision: Decision) -> list[str]:
    query = (
        select(fills)
        .join(intents, intents.c.client_id == fills.c.client_id)
        .where(intents.c.decision_id == decision.decision_id)
        .order_by(fills.c.seq)
    )
    lines = [
        f"{utc(row.ts)} {row.leg}: {row.side} {row.quantity} at {row.price}, fee {row.fee}"
        for row in connection.execute(query)
    ]
    return lines or ["none"]


def _ending(connection: Connection, decision: Decision) -> list[str]:
    lines = []
    known = select(outcomes).where(
        outcomes.c.symbol == decision.symbol, outcomes.c.bar_ts == decision.bar_ts
    )
    for row in connection.execute(known.order_by(outcomes.c.horizon)):
        way = "up" if row.y_up else "not up"
        lines.append(f"outcome: {row.fwd_ret:+.6f} over {row.horizon} bars ({way})")
    ended = select(trades).where(trades.c.decision_id == decision.decision_id)
    lines.extend(_trade_line(row) for row in connection.execute(ended))
    held = connection.execute(
        select(positions).where(positions.c.decision_id == decision.decision_id)
    ).first()
    if held is not None:
        lines.append(f"position: {held.quantity} still open since {utc(held.opened_ms)}")
    return lines or ["no outcome yet, no trade"]


def _trade_line(row: Any) -> str:
    return (
        f"trade: {row.side} {row.quantity} from {row.entry_price.normalize():f} to "
        f"{row.exit_price.normalize():f}, net {row.pnl:.4f} ({row.realised_r:+.2f} R; fees "
        f"{row.fees:.4f}, funding {row.funding:.4f}), {row.minutes_held:.0f} minutes, "
        f"ended by {row.exit_reason}"
    )


@dataclass(frozen=True)
class Story:
    """A decision told in sections, in the order in which it happened."""

    decision_id: str
    headline: str
    prediction: tuple[str, ...]
    reasons: tuple[str, ...]
    orders: tuple[str, ...]
    fills: tuple[str, ...]
    ending: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the story as plain values."""
        return asdict(self)

    def text(self) -> str:
        """Return the story, one fact a line."""
        parts = [f"decision {self.decision_id}", self.headline]
        for title in ("prediction", "reasons", "orders", "fills", "ending"):
            parts.append(f"{title}:")
            parts.extend(f"  {line}" for line in getattr(self, title))
        return "\n".join(parts)

    def __str__(self) -> str:
        """Return the text."""
        return self.text()


def explain_decision(db: Database, wanted: str) -> Story:
    """Return a decision's story.

    Raises
    ------
    TradewindError
        ``bad_input`` when no decision, or more than one, has that id or beginning.
    """
    with db.read() as connection:
        decision = _load(connection, wanted)
        refusal = f" ({decision.refusal.value})" if decision.refusal else ""
        return Story(
            decision_id=decision.decision_id,
            headline=f"{decision.symbol} {decision.timeframe}, bar {utc(decision.bar_ts)}: "
            f"{decision.action.value}{refusal}, strategy {decision.strategy}, policy "
            f"{decision.policy_version}, source {decision.source}, made "
            f"{utc(decision.created_ms)}",
            prediction=tuple(_predictions(connection, decision)),
            reasons=tuple(
                f"{place}. {_told(reason)}" for place, reason in enumerate(decision.reasons, 1)
            ),
            orders=tuple(_orders(connection, decision)),
            fills=tuple(_fills(connection, decision)),
            ending=tuple(_ending(connection, decision)),
        )
