"""The command line: `tradewind --help`. Commands import what they need when they run."""

from pipelines.cli.main import main

__all__ = ["main"]
