"""The op of the model supervisor: every live member judged, the verdicts shown as tables."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from typing import Any

from dagster import (
    AssetObservation,
    MetadataValue,
    OpExecutionContext,
    TableColumn,
    TableRecord,
    TableSchema,
    op,
)

from assets.keys import family_key
from assets.metadata import figures
from assets.platform import Platform
from assets.steps import supervise

MEMBER_COLUMNS = ("member", "state", "action", "code", "retrain", "version", "why")
FIGURE_COLUMNS = ("member", "figure", "value", "warn", "disable", "leave", "text")
NUMBERS = ("value", "warn", "disable", "leave")


@op(description="The supervisor's verdict on each champion that votes in the ensemble.")
def judge_members(context: OpExecutionContext, platform: Platform) -> dict[str, Any]:
    """Judge every live member, store its state, and show why."""
    from tradewind.ledger import open_clock, open_ledger

    settings = platform.settings
    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        judged = supervise.supervise(settings, ledger, now_ms)
    if not judged:
        context.log.warning("no champion votes in the ensemble: train one first")
    for item in judged:
        _tell(context, item)
    context.add_output_metadata(tables(judged))
    return {item.name: item.verdict.after.state.value for item in judged}


def _tell(context: OpExecutionContext, item: supervise.Judged) -> None:
    after = item.verdict.after
    log = context.log.info if after.state == "enabled" else context.log.warning
    log("%s is %s (%s): %s", item.name, after.state.value, item.verdict.action, after.why)
    if not item.stands:
        context.log.warning(
            "%s keeps its state: %s",
            item.name,
            f"held by {after.who}" if after.held else "another process changed it meanwhile",
        )
    context.log_event(
        AssetObservation(
            family_key(after.family, "evaluation"),
            partition=after.key,
            metadata=figures(
                {
                    "version": after.version or None,
                    "member_state": after.state.value,
                    "reason": after.code.value,
                    "why": after.why,
                    **{f"supervisor_{name}": value for name, value in after.figures.items()},
                }
            ),
        )
    )


def tables(judged: list[supervise.Judged]) -> dict[str, Any]:
    """Return the members with their states, and every figure beside its limits."""
    members = [
        TableRecord(
            {
                "member": item.name,
                "state": item.verdict.after.state.value,
                "action": item.verdict.action if item.stands else "none",
                "code": item.verdict.after.code.value,
                "retrain": "asked" if item.verdict.after.retrain else "no",
                "version": item.verdict.after.version,
                "why": item.verdict.after.why,
            }
        )
        for item in judged
    ]
    measured = [
        TableRecord(
            {
                "member": item.name,
                "figure": finding.name,
                "value": round(finding.value, 4),
                "warn": finding.limit.warn,
                "disable": finding.limit.disable,
                "leave": finding.limit.leave,
                "text": finding.text,
            }
        )
        for item in judged
        for finding in item.verdict.findings
        if finding.value is not None
    ]
    return {
        "members": _table(members, MEMBER_COLUMNS),
        "figures": _table(measured, FIGURE_COLUMNS),
    }


def _table(records: list[TableRecord], columns: tuple[str, ...]) -> MetadataValue[Any]:
    kinds = [(name, "float" if name in NUMBERS else "string") for name in columns]
    schema = TableSchema(columns=[TableColumn(name, type=kind) for name, kind in kinds])
    return MetadataValue.table(records, schema=schema)
