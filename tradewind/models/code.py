"""Which code made a model: what a stored result has to agree with to be used again."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

from tradewind.models.families import FAMILIES

PACKAGE = "tradewind.models"
SHARED = ("tradewind.models.calibration", "tradewind.models.skill")
"""Modules that turn any family's raw answers into calibrated ones."""


@functools.lru_cache
def family_code(family: str) -> str:
    """Return a hash of the code that fits ``family`` and calibrates its answers.

    The family's module, the private modules it builds on, and the calibration; comments,
    docstrings and layout do not count.
    """
    seen: dict[str, str] = {}
    waiting = [FAMILIES[family].split(":")[0], *SHARED]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        tree = ast.parse(_source(module))
        waiting += _private_imports(tree)
        seen[module] = ast.dump(_without_docstrings(tree))
    text = "\n".join(f"{name}:{seen[name]}" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return Path(spec.origin).read_text(encoding="utf-8")


def _private_imports(tree: ast.Module) -> list[str]:
    """Return the private modules of the package that ``tree`` imports, at any depth of it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith(f"{PACKAGE}._"):
                found.append(node.module)
            elif node.module == PACKAGE:
                found += [f"{PACKAGE}.{item.name}" for item in node.names if item.name[0] == "_"]
        elif isinstance(node, ast.Import):
            found += [item.name for item in node.names if item.name.startswith(f"{PACKAGE}._")]
    return found


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        node.body = [
            part
            for part in node.body
            if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        ]
    return tree
