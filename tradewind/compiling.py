"""Functions compiled to machine code by numba, kept on disk between processes.

Import it, and modules that use it, lazily: it loads numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import structlog

log = structlog.get_logger(__name__)
Function = TypeVar("Function", bound=Callable[..., Any])
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
"""Other threads run meanwhile; dividing by 0 gives inf or NaN as in numpy. No fastmath: it would
make the last bits depend on how many numbers are computed together."""


def compiled(signature: Any) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function for the one ``signature``, when it is imported.

    The machine code is kept beside the source file, or in the user's cache folder, and made
    anew when that file changes, and ONLY then: what other files define must come in as an
    argument. Where nothing can be kept, every process compiles for itself.
    """

    def decorate(function: Function) -> Function:
        try:
            return cast(Function, numba.njit(signature, cache=True, **OPTIONS)(function))
        except (OSError, RuntimeError, EOFError) as error:
            log.warning(
                "compiled_code_not_kept",
                function=function.__name__,
                reason=str(error),
                hint="Start-up is slower: point NUMBA_CACHE_DIR at a folder that can be written",
            )
            return cast(Function, numba.njit(signature, **OPTIONS)(function))

    return decorate


def inlined(function: Function) -> Function:
    """Compile a function as a part of the compiled ones of its file that call it."""
    return cast(Function, numba.njit(function, **OPTIONS))
