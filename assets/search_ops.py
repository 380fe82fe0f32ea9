"""The op that searches hyperparameters."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from typing import Any

from dagster import AssetObservation, MetadataValue, OpExecutionContext, op

from assets.config import SearchConfig
from assets.keys import family_key
from assets.metadata import figures
from assets.platform import Platform
from assets.steps.search import search
from assets.units import plan_units
from tradewind.errors import ErrorCode, TradewindError


@op(
    pool="training",
    description="Try other hyperparameters, each over a whole walk-forward; the newest days are "
    "held out from every trial.",
)
def search_hyperparameters(
    context: OpExecutionContext, platform: Platform, config: SearchConfig
) -> dict[str, Any]:
    """Search, and observe the best trial on the asset graph; nothing is registered."""
    symbols = [config.symbol] if config.symbol else []
    units = plan_units(platform.settings, symbols, [config.family.value])
    if len(units) != 1:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"family = {config.family.value!r} is trained for each symbol by itself",
            "symbol: name the one to search for",
        )

    def on_trial(trial: Any) -> None:
        context.log.info(
            "trial %d %s score %+.6f %s", trial.number, trial.status, trial.score, trial.params
        )

    def on_fold(trial: int, fold: int, score: float) -> None:
        context.log.info("trial %d fold %d score %+.6f", trial, fold, score)

    report = search(
        platform.settings,
        platform.clock(),
        units[0],
        trials=config.trials,
        days_back=config.days_back,
        holdout_days=config.holdout_days,
        dagster_run_id=context.run_id,
        on_trial=on_trial,
        on_fold=on_fold,
    )
    context.log_event(
        AssetObservation(
            family_key(report.family, "evaluation"),
            partition=report.key,
            metadata=figures(
                {
                    "search_verdict": report.verdict,
                    "search_trials": len(report.trials),
                    "search_best": str(report.best["params"]),
                    **{f"holdout_{name}": value for name, value in report.holdout.items()},
                    "mlflow_url": report.run_url,
                    "report": MetadataValue.path(report.file),
                }
            ),
        )
    )
    return report.to_dict()
