"""The guide's generated tables are what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tradewind.contracts import RefusalCode
from tradewind.trading.profiles import profile_table
from tradewind.trading.refusals import REFUSALS, refusal_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("module", "table"), [("profiles", profile_table()), ("refusals", refusal_table())]
)
def test_the_guide_holds_the_generated_table(module: str, table: str) -> None:
    guide = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    command = f"python -m tradewind.trading.{module}"
    block = re.search(rf"<!-- begin: {re.escape(command)} -->\n(.*?)<!-- end -->", guide, re.DOTALL)
    assert block is not None
    assert block.group(1) == table, f"run `{command}` and paste its output into docs/policy.md"


def test_every_code_is_explained() -> None:
    assert set(REFUSALS) == set(RefusalCode)


def test_the_named_command_prints_the_table() -> None:
    command = [sys.executable, "-m", "tradewind.trading.refusals"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == refusal_table()
