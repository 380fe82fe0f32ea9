"""How commands speak: tables for people, JSON for scripts, one line for an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import typer

from tradewind.errors import ErrorCode, TradewindError

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = typer.Option(False, "--json", help="Print one JSON object instead of text.")

EXIT_CODES = {
    ErrorCode.BAD_SETTING: 2,
    ErrorCode.BAD_INPUT: 2,
    ErrorCode.UNKNOWN_SYMBOL: 2,
    ErrorCode.LEDGER_UNBALANCED: 3,
    ErrorCode.GATES_FAILED: 4,
    ErrorCode.ALREADY_RUNNING: 5,
}
"""Exit codes by kind of failure; every other failure is 1."""


def friendly(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an expected failure into one line on stderr and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # The libraries' own notes would stand between a person and the answer.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        try:
            return command(*args, **kwargs)
        except TradewindError as error:
            if os.environ.get("TRADEWIND_TRACEBACK"):
                raise
            if kwargs.get("as_json"):
                sys.stdout.write(json.dumps(error.body()) + "\n")
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(EXIT_CODES.get(error.code, 1)) from error
        except OSError as error:
            if os.environ.get("TRADEWIND_TRACEBACK"):
                raise
            sys.stderr.write(
                f"error: {error.strerror}: {error.filename}. Check that TRADEWIND_HOME "
                "and the paths given exist and may be written\n"
            )
            raise typer.Exit(1) from error
        except Exception as error:
            if os.environ.get("TRADEWIND_TRACEBACK") or not _is_full_database(error):
                raise
            sys.stderr.write(
                f"error: disk_full: a database could not be written ({error.args[0]}). "
                "Free space where TRADEWIND_HOME is, then run the same command again\n"
            )
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; run the same command again to continue\n")
            raise typer.Exit(130) from None

    return run


def _is_full_database(error: Exception) -> bool:
    """Return whether SQLite found no room; it says so in words only, in either of two ways."""
    if "sqlalchemy" not in sys.modules:
        return False
    from sqlalchemy.exc import OperationalError

    said = ("disk I/O error", "database or disk is full")
    return isinstance(error, OperationalError) and any(words in str(error) for words in said)


def emit(value: Mapping[str, Any], as_json: bool, text: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or call ``text`` to print it for a person."""
    if as_json:
        text_of = json.dumps(value, indent=2, default=str, allow_nan=False, ensure_ascii=False)
        sys.stdout.write(text_of + "\n")
    else:
        text()


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table; figures right-aligned, absent values as a dash."""
    from rich.console import Console
    from rich.table import Table

    cells = [list(row) for row in rows]
    view = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        figures = index > 0 and all(_is_figure(row[index]) for row in cells)
        view.add_column(
            column,
            justify="right" if figures else "left",
            no_wrap=index == 0,
            overflow="fold",
        )
    for row in cells:
        view.add_row(*("–" if cell is None else str(cell) for cell in row))
    Console().print(view)


def _is_figure(cell: object) -> bool:
    if cell is None:
        return True
    try:
        float(str(cell))
    except ValueError:
        return False
    return True


def say(text: str) -> None:
    """Print one line of plain text."""
    sys.stdout.write(text + "\n")
