"""The application and its groups of commands."""

from __future__ import annotations

import os
import sys

import structlog
import typer

from pipelines.cli import (
    clock,
    data,
    data_store,
    demo,
    evaluate,
    look,
    members,
    models,
    replay_exchange,
    run,
    safety,
    up,
)
from pipelines.cli.output import friendly

app = typer.Typer(
    name="tradewind",
    help=(
        "Trading models from bars to paper orders: ingest, train, calibrate, gate, promote, serve, "
        "trade. State lives under the setting `home` (TRADEWIND_HOME, default ./var); settings "
        "come from tradewind.toml and TRADEWIND_* variables."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

OWN_HOME = ("demo", "doctor", "up")
DATA = "Data"
MODELS = "Models"
RUN = "Serve and trade"
LOOK = "Look"

app.command(rich_help_panel=DATA)(data.ingest)
app.command(rich_help_panel=DATA)(data.features)
app.command(rich_help_panel=MODELS)(models.train)
app.command(rich_help_panel=MODELS)(models.search)
app.command(rich_help_panel=MODELS)(evaluate.evaluate)
app.command("evaluate-champions", rich_help_panel=MODELS)(models.evaluate_champions)
app.command(rich_help_panel=MODELS)(models.drift)
app.command(rich_help_panel=MODELS)(models.recalibrate)
app.command(rich_help_panel=MODELS)(models.review)
app.command(rich_help_panel=MODELS)(models.outcomes)
app.command(rich_help_panel=MODELS)(models.promote)
app.command(rich_help_panel=MODELS)(models.rollback)
app.command(rich_help_panel=RUN)(up.up)
app.command(rich_help_panel=RUN)(run.serve)
app.command(rich_help_panel=RUN)(run.trade)
app.command(rich_help_panel=RUN)(demo.demo)
app.command("replay-exchange", rich_help_panel=RUN)(replay_exchange.replay_exchange)
app.command(rich_help_panel=LOOK)(look.status)
app.command(rich_help_panel=LOOK)(up.logs)
app.command(rich_help_panel=LOOK)(look.explain)
app.command(rich_help_panel=LOOK)(look.doctor)
app.add_typer(data_store.data_app, name="data", rich_help_panel=DATA)
app.add_typer(members.members_app, name="members", rich_help_panel=MODELS)
app.add_typer(safety.kill_app, name="kill", rich_help_panel=RUN)
app.add_typer(look.ledger_app, name="ledger", rich_help_panel=LOOK)
app.add_typer(clock.clock_app, name="clock", rich_help_panel=LOOK)
app.add_typer(look.config_app, name="config", rich_help_panel=LOOK)


@app.callback()
@friendly
def _same_home(context: typer.Context) -> None:
    """Mean the home, clock and databases of `up`: a kill switch elsewhere would stop nothing."""
    from pipelines.up import homes
    from tradewind.settings import load_settings

    if context.invoked_subcommand in OWN_HOME or "--help" in sys.argv:
        return
    home = homes.choose_home()
    named = homes.HOME_VARIABLE in os.environ
    adopted = homes.adopt(home)
    os.environ.setdefault("TRADEWIND_CLOCK", homes.clock_of(home))
    homes.check_databases(home, load_settings())
    if adopted or (not named and home != homes.DEFAULT_HOME.absolute()):
        text = f"home: {home}, {len(adopted)} settings of its demo"
        sys.stderr.write(f"{text} ({homes.HOME_VARIABLE} names another)\n")


def main() -> None:
    """Run the command line; log lines go to stderr, so that ``--json`` output stays whole."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    app()
