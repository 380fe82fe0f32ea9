"""One family of errors: each names the thing, the value and the remedy, in one line."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong, enumerated; the CLI and the HTTP error body both print it."""

    BAD_SETTING = "bad_setting"
    BAD_INPUT = "bad_input"
    NO_BARS = "no_bars"
    DATA_UNREADABLE = "data_unreadable"
    CORRUPT_FILE = "corrupt_file"
    UNKNOWN_SYMBOL = "unknown_symbol"
    NOT_ENOUGH_BARS = "not_enough_bars"
    NOT_ENOUGH_LABELS = "not_enough_labels"
    STALE_FEATURES = "stale_features"
    NO_CHAMPION = "no_champion"
    NO_CHALLENGER = "no_challenger"
    UNKNOWN_VERSION = "unknown_version"
    MODEL_UNUSABLE = "model_unusable"
    MODEL_EXPIRED = "model_expired"
    CHAMPION_CHANGED = "champion_changed"
    OUT_OF_RANGE = "out_of_range"
    GATES_FAILED = "gates_failed"
    EXCHANGE_UNREACHABLE = "exchange_unreachable"
    TRACKING_UNREACHABLE = "tracking_unreachable"
    SERVING_UNREACHABLE = "serving_unreachable"
    OVERLOADED = "overloaded"
    DISK_FULL = "disk_full"
    DAGSTER_UNREACHABLE = "dagster_unreachable"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    LEDGER_UNBALANCED = "ledger_unbalanced"
    ALREADY_RUNNING = "already_running"
    INTERNAL = "internal"


class TradewindError(Exception):
    """An expected failure that a person can act on.

    Parameters
    ----------
    code
        Enumerated kind of failure.
    detail
        What happened, naming the field or thing and its value.
    hint
        The remedy: what to do, or which command to run.
    """

    def __init__(self, code: ErrorCode, detail: str, hint: str) -> None:
        super().__init__(f"{code.value}: {detail}. {hint}")
        self.code = code
        self.detail = detail
        self.hint = hint

    def __reduce__(self) -> tuple[type[TradewindError], tuple[ErrorCode, str, str]]:
        """Survive a process boundary (multiprocess workers re-raise it whole)."""
        return (type(self), (self.code, self.detail, self.hint))

    def body(self) -> dict[str, str]:
        """Return the JSON error body of the serving contract."""
        return {"error": self.code.value, "detail": self.detail, "hint": self.hint}
