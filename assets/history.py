"""The asset `history_evaluation`: every retraining of the past again, judged on what followed."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from collections.abc import Mapping
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetObservation,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
)

from assets import metadata
from assets.config import HistoryConfig, names
from assets.keys import FEATURES, HISTORY_EVALUATION
from assets.platform import Platform
from assets.steps.history import HistoryChoices, HistoryResult, evaluate_plan, plan_history
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

COMPARED = (
    "auc",
    "auc_low",
    "auc_high",
    "log_loss",
    "brier",
    "ece",
    "accuracy",
    "confident_5pct_accuracy",
    "confident_5pct_gross_bps",
    "sharpe",
    "sharpe_low",
    "sharpe_high",
    "deflated_sharpe",
    "max_drawdown",
    "turnover",
    "win_rate",
    "risk_coverage_area",
)
"""Figures of the comparison's table, as far as a page has room for them."""
DIGITS = 5


@asset(
    key=HISTORY_EVALUATION,
    deps=[FEATURES],
    kinds={"python", "mlflow"},
    pool="training",
    group_name="evaluation",
    owners=["team:quant"],
    code_version="1",
    description="Families, ensemble and baselines over the whole history: refitted as time goes "
    "on, each judged on what followed, after costs, with intervals and leak canaries. Finished "
    "folds are kept: a run that was cancelled or killed continues where it stopped.",
)
def history_evaluation(
    context: AssetExecutionContext, platform: Platform, config: HistoryConfig
) -> MaterializeResult[None]:
    """Walk forward over the history; each fold is a line of the log and a point on the graph."""
    plan = plan_history(
        chosen_settings(platform.settings, config),
        platform.clock(),
        HistoryChoices(
            symbols=tuple(config.symbols),
            families=tuple(names(config.families)),
            per_symbol=config.per_symbol,
            shuffle_labels=config.shuffle_labels,
        ),
    )
    for cost in plan.costs:
        context.log.info(
            "%s %s: %d folds, about %.0f s", cost.family, cost.key, cost.folds, cost.seconds
        )

    def heard(news: Any) -> None:
        context.log.info("%s %s fold %d of %d", news.family, news.key, news.number, news.total)
        if news.result is None:
            return
        shown = {
            "family": news.family,
            "model_key": news.key,
            "fold": news.number,
            "folds": news.total,
            **news.result.metrics,
        }
        context.log_event(AssetObservation(HISTORY_EVALUATION, metadata=metadata.figures(shown)))

    result = evaluate_plan(plan, on_fold=heard, dagster_run_id=context.run.run_id)
    broken = _broken(result)
    if broken:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"the evaluation fools itself: {broken} (report: {result.report})",
            "Look at the section on leak canaries of the report",
        )
    return MaterializeResult(metadata=_shown(result))


def chosen_settings(settings: Settings, config: HistoryConfig) -> Settings:
    """Return the settings with the form's choices in them."""
    update = {
        "since": config.first_day(),
        "refit_days": config.refit_days,
        "deep_refit_months": config.deep_refit_months,
        "days_back_max": config.days_back_max,
    }
    return settings.model_copy(
        update={
            "evaluation": settings.evaluation.model_copy(update=update),
            "training": settings.training.model_copy(update={"horizon": config.horizon}),
        }
    )


def _broken(result: HistoryResult) -> str:
    """Return which leak canaries failed, empty for none."""
    wanted = ["lookahead", "slices"]
    if result.plan.facts["shuffled_labels"]:
        wanted.append("coin_flips")
    return ", ".join(name for name in wanted if not result.canaries[name]["ok"])


def _shown(result: HistoryResult) -> dict[str, Any]:
    """Return the verdict first, then the table, links, pictures."""
    verdict = "\n".join(f"- **{part.title}**: {part.text}" for part in result.findings)
    luck = result.evaluation.luck
    return {
        "verdict": MetadataValue.md(verdict),
        "comparison": _table(result.evaluation.figures["same"]),
        "report": MetadataValue.path(str(result.report)),
        "mlflow_run_id": result.run_id or "none",
        **metadata.figures(
            {
                "mlflow_url": result.run_url,
                "report_page_url": result.report_url,
                "rows": result.plan.facts["rows"],
                "start_ms": result.plan.facts["start_ms"],
                "end_ms": result.plan.facts["end_ms"],
                "trials": luck["trials"],
                "overfitting_probability": (luck["overfitting"] or {}).get("probability"),
                "judging_seconds": result.evaluation.seconds,
            }
        ),
        **metadata.pictures(list(result.pictures.values())),
    }


def _table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> MetadataValue:
    """Return every forecaster in every scope, one a row."""
    records = [
        TableRecord(
            {
                "forecaster": name,
                "rows_of": scope,
                "rows": own["rows"],
                **{metric: _rounded(own.get(metric)) for metric in COMPARED},
            }
        )
        for name, scopes in figures.items()
        for scope, own in scopes.items()
    ]
    schema = TableSchema(
        columns=[
            TableColumn("forecaster", type="string"),
            TableColumn("rows_of", type="string"),
            TableColumn("rows", type="int"),
            *(TableColumn(metric, type="float") for metric in COMPARED),
        ]
    )
    return MetadataValue.table(records, schema=schema)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)
