"""Ops on the store as a whole: retention and compaction."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from typing import Any

from dagster import MetadataValue, OpExecutionContext, Output, TableRecord, op
from pydantic import Field

from assets.config import Choices
from assets.metadata import figures
from assets.platform import Platform
from tradewind.errors import TradewindError

SHOWN_CHANGES = 200


class UpkeepConfig(Choices):
    """Choices of an upkeep."""

    dry_run: bool = Field(
        default=False, description="only say what would be done; default false: do it"
    )


@op(description="Old months dropped, partitions rewritten in their shortest form.")
def keep_store(
    context: OpExecutionContext, platform: Platform, config: UpkeepConfig
) -> Output[dict[str, Any]]:
    """Run upkeep on the active set; a partition that cannot be read fails the run at the end."""
    from tradewind.errors import ErrorCode
    from tradewind.market.upkeep import run_upkeep

    report = run_upkeep(platform.settings, platform.clock(), dry_run=config.dry_run)
    for error in report.errors:
        context.log.error(error)
    if report.errors:
        raise TradewindError(
            ErrorCode.CORRUPT_FILE,
            f"{len(report.errors)} partitions could not be kept up; first: {report.errors[0]}",
            "Correct them as their errors say, then run the job again",
        )
    dropped = sum(change.action == "drop" for change in report.changes)
    values = {
        "dropped": dropped,
        "compacted": len(report.changes) - dropped,
        "bytes_saved": report.saved,
        "needed_days": report.needed_days,
        "kept_for_models": ", ".join(report.kept_for_models) or "none",
        "dry_run": str(report.dry_run),
    }
    shown = figures(values)
    if report.changes:
        shown["changes"] = MetadataValue.table(
            [
                TableRecord(
                    {
                        "symbol": change.symbol,
                        "kind": change.kind,
                        "month": change.month,
                        "action": change.action,
                        "bytes": change.saved,
                    }
                )
                for change in report.changes[:SHOWN_CHANGES]
            ]
        )
    return Output(values, metadata=shown)
