"""The names under which figures are logged, and what they mean: one table for every run.

A name is ``[SCOPE/]METRIC[_SUFFIX]``: the metric comes first, so that a list sorted by name,
as MLflow's compare view is, shows a model, its interval and its baselines side by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tradewind.models.baselines import BASELINES

Better = Literal["higher", "lower", "neither"]
WALK_FORWARD = "wf_"
INTERVAL = ("_low", "_high")


@dataclass(frozen=True)
class MetricName:
    """One row of the table.

    ``spread`` names carry ``_low`` and ``_high``; ``rivals`` carry the baselines' names;
    ``folds`` are also measured on pooled walk-forward rows, with the prefix ``wf_``;
    ``symbols`` also stand for each symbol of a pooled model, as ``SYMBOL/name``.
    """

    name: str
    meaning: str
    unit: str
    better: Better
    spread: bool = False
    rivals: tuple[str, ...] = ()
    folds: bool = False
    symbols: bool = False

    def spellings(self) -> Iterable[str]:
        """Yield every name that this row covers, those of symbols without their prefix."""
        for prefix in ("", WALK_FORWARD) if self.folds else ("",):
            yield prefix + self.name
            if self.spread:
                yield from (prefix + self.name + end for end in INTERVAL)
            yield from (f"{prefix}{self.name}_{rival}" for rival in self.rivals)


def _quality(name: str, meaning: str, unit: str, better: Better) -> MetricName:
    return MetricName(
        name, meaning, unit, better, spread=True, rivals=BASELINES, folds=True, symbols=True
    )


def _minus(rival: str) -> MetricName:
    return MetricName(
        f"log_loss_minus_{rival}",
        f"log-loss of the model minus that of {rival}, row by row",
        "nats",
        "lower",
        spread=True,
        folds=True,
    )


def _trading(
    name: str, meaning: str, unit: str, better: Better, *, spread: bool = False
) -> MetricName:
    return MetricName(name, meaning, unit, better, spread=spread, folds=True, symbols=True)


def _stated(
    name: str, meaning: str, unit: str, better: Better, *, spread: bool = True
) -> MetricName:
    return MetricName(name, meaning, unit, better, spread=spread, folds=True, symbols=True)


def _champions(name: str, unit: str, better: Better) -> MetricName:
    return MetricName(
        f"{name}_champion", f"the champion's {name} on the same rows (review)", unit, better
    )


REVIEWED: tuple[tuple[str, str, Better], ...] = (
    ("accuracy", "share", "higher"),
    ("auc", "share", "higher"),
    ("brier", "probability²", "lower"),
    ("ece", "probability", "lower"),
    ("log_loss", "nats", "lower"),
)
CERTAIN: tuple[tuple[str, Better], ...] = (("most", "lower"), ("least", "neither"))

METRICS: tuple[MetricName, ...] = (
    _quality("accuracy", "share of rows whose side of one half was right", "share", "higher"),
    _quality("auc", "area under the ROC curve", "share", "higher"),
    _quality("brier", "mean squared error of p_up", "probability²", "lower"),
    _quality("ece", "expected calibration error, bins of equal mass", "probability", "lower"),
    _quality("log_loss", "mean log-loss of p_up", "nats", "lower"),
    *(_minus(rival) for rival in BASELINES),
    MetricName(
        "ece_perfect",
        "ECE that a perfectly calibrated model would show with these p_up",
        "probability",
        "neither",
        folds=True,
        symbols=True,
    ),
    MetricName("rows", "rows judged", "rows", "neither", folds=True, symbols=True),
    MetricName("test_start_ms", "open of the first bar of the test slice", "epoch ms", "neither"),
    MetricName("test_end_ms", "open of the last bar of the test slice", "epoch ms", "neither"),
    _stated(
        "ece_perfect_overlapping",
        "the same, with labels that overlap as real ones do",
        "probability",
        "neither",
        spread=False,
    ),
    _stated(
        "abstain_share",
        "rows whose epistemic_p is above the serving limit",
        "share",
        "neither",
        spread=False,
    ),
    MetricName(
        "out_of_range_share",
        "rows with an input outside the training range (`serving.ranges`)",
        "share",
        "neither",
    ),
    MetricName(
        "conformal_coverage",
        "share of returns inside mu_low … mu_high; should be `conformal_level`",
        "share",
        "neither",
        spread=True,
        folds=True,
        symbols=True,
    ),
    MetricName("conformal_level", "what that share is meant to be", "share", "neither"),
    MetricName("conformal_width", "mean width of mu_low … mu_high", "log return", "lower"),
    _stated(
        "epistemic_p_mean",
        "mean spread of p_up over passes",
        "probability",
        "neither",
        spread=False,
    ),
    _stated(
        "risk_coverage_area",
        "area under the risk–coverage curve: mean |error of mu| over all coverages",
        "log return",
        "lower",
    ),
    *(
        _stated(
            f"error_{which}_certain_decile",
            f"mean |error of mu| of the tenth of rows that are {which} certain",
            "log return",
            better,
            spread=False,
        )
        for which, better in CERTAIN
    ),
    _stated(
        "error_deciles_rising",
        "share of the nine steps between deciles of uncertainty at which the error rises",
        "share",
        "higher",
        spread=False,
    ),
    _stated("mean_absolute_error", "mean |error of mu| of all rows", "log return", "lower"),
    _stated(
        "error_rank_correlation",
        "rank correlation of stated uncertainty and |error of mu|",
        "correlation",
        "higher",
    ),
    _stated(
        "confident_5pct_accuracy", "accuracy of the most confident 5 % of rows", "share", "higher"
    ),
    _stated(
        "confident_5pct_gross_bps",
        "mean return of the most confident 5 % of rows, before costs",
        "bps",
        "higher",
    ),
    _stated(
        "confident_5pct_least_distance",
        "distance of p_up from one half that the most confident 5 % of rows have at least",
        "probability",
        "neither",
        spread=False,
    ),
    _trading("trades", "trades of the plain rule, one at a time a symbol", "trades", "neither"),
    _trading("mean_net_bps", "mean return of a trade after costs", "bps", "higher", spread=True),
    _trading("win_rate", "share of trades that earned after costs", "share", "higher", spread=True),
    _trading("profit_factor", "gains over losses (1000: no loss)", "ratio", "higher"),
    _trading("net_return", "return of the span after costs, compounded", "share", "higher",
             spread=True),
    _trading("sharpe", "annual Sharpe ratio of daily returns after costs", "ratio", "higher",
             spread=True),
    _trading(
        "deflated_sharpe", "probability that the true Sharpe ratio is no luck", "share", "higher"
    ),
    _trading("max_drawdown", "deepest fall of equity below its peak", "share", "lower",
             spread=True),
    _trading("turnover", "notional traded a day over capital", "ratio", "neither"),
    MetricName(
        "log_loss_ensemble_minus_best_member",
        "log-loss of the ensemble minus that of its best voting member, row by row",
        "nats",
        "lower",
        spread=True,
    ),
    MetricName("trials", "strategies of a history evaluation that traded", "trials", "neither"),
    MetricName(
        "overfitting_probability",
        "probability that the best strategy of one half of the time is below the other's median",
        "share",
        "lower",
    ),
    MetricName("judging_seconds", "wall time of judging an evaluation's rows", "s", "lower"),
    MetricName("train_loss", "loss of an epoch on its training rows (step = epoch)", "nats + NLL",
               "lower"),
    MetricName("valid_loss", "loss on validation rows (step = epoch)", "nats + NLL", "lower"),
    MetricName(
        "valid_log_loss",
        "log-loss on validation rows (step = epoch, or member of a bag of trees)",
        "nats",
        "lower",
    ),
    MetricName("best_epoch", "epoch (or member) that was kept", "epoch", "neither"),
    MetricName(
        "best_valid_log_loss",
        "log-loss on validation rows at the kept epoch (trees: mean of the bag)",
        "nats",
        "lower",
    ),
    MetricName("valid_l2", "squared error of the return (step = member)", "volatility²", "lower"),
    MetricName("rounds", "trees of a booster (step = member)", "trees", "neither"),
    MetricName("seconds", "wall time of an epoch (a series) or of a fold", "s", "lower"),
    _stated(
        "uncalibrated_auc",
        "auc of the probability before calibration (history evaluation)",
        "share",
        "higher",
        spread=False,
    ),
    _stated(
        "mean_fold_auc",
        "mean of the folds' own auc, by rows (history evaluation)",
        "share",
        "higher",
        spread=False,
    ),
    MetricName(
        "skill", "gain in log-loss on a fold's calibration slice over the base rate, relative",
        "share", "higher",
    ),
    MetricName("fit_seconds", "wall time of the fit since it was last resumed", "s", "lower"),
    MetricName("psi_worst", "PSI of the feature that drifted most, recent days", "PSI", "lower"),
    MetricName("psi_prediction", "PSI of p_up, recent days", "PSI", "lower"),
    MetricName("units", "units of the retraining", "units", "neither"),
    MetricName("units_judged", "units that have a registered version", "units", "higher"),
    MetricName("units_passed", "units whose gates all passed", "units", "higher"),
    *(_champions(name, unit, better) for name, unit, better in REVIEWED),
    MetricName(
        "log_loss_minus_champion",
        "log-loss of the challenger minus the champion's, row by row (review)",
        "nats",
        "lower",
        spread=True,
    ),
    MetricName("p_better", "p-value of a challenger no better, one-sided (review)", "probability",
               "neither"),
    MetricName("p_worse", "p-value of a challenger no worse, one-sided (review)", "probability",
               "neither"),
    MetricName("days", "days that a review is over", "days", "neither"),
)  # fmt: skip


def known(name: str) -> bool:
    """Tell whether a logged name is in the table."""
    scope, _, own = name.rpartition("/")
    rows = [row for row in METRICS if row.symbols] if scope else METRICS
    return any(own in row.spellings() for row in rows)


def markdown() -> str:
    """Return the table as the documents show it."""
    lines = [
        "| name | meaning | unit | better | also as |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in METRICS:
        also = []
        if row.spread:
            also.append(" ".join(f"`{end}`" for end in INTERVAL))
        if row.rivals:
            also.append(" ".join(f"`_{rival}`" for rival in row.rivals))
        if row.folds:
            also.append(f"`{WALK_FORWARD}`…")
        if row.symbols:
            also.append("`SYMBOL/`…")
        lines.append(
            f"| `{row.name}` | {row.meaning} | {row.unit} | {row.better} | {', '.join(also)} |"
        )
    return "\n".join(lines)
