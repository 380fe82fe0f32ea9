"""``python -m serving``: serve with the settings of the environment and tradewind.toml."""

from __future__ import annotations

import sys

from serving.launch import serve
from tradewind.errors import TradewindError
from tradewind.settings import load_settings


def main() -> int:
    """Serve; print an expected failure as one line, and return the exit status."""
    try:
        serve(load_settings())
    except TradewindError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
