"""Passwords inside URLs, made unreadable before anything is shown or stored."""

from __future__ import annotations

import re

MASK = "***"
# Greedy up to the last "@" before a blank: a password may hold a "/" or "@" that its writer
# forgot to escape, and masking a little too much of a line is the safe mistake.
# The second form is an address whose scheme was forgotten.
_IN_ADDRESS = re.compile(r"""(://[^:/@\s]*|(?:^|[\s'"(=])[^:/@\s'"(=]+):(?!//)(\S*)@""")
_IN_QUERY = re.compile(r"(\bpassword=)[^&\s'\"]+", re.IGNORECASE)


def mask_passwords(text: str) -> str:
    """Return ``text`` with the password of every URL or connection string in it replaced.

    Examples
    --------
    >>> mask_passwords("postgresql://tw:s3cret@host/db is down")
    'postgresql://tw:***@host/db is down'
    """
    return _IN_QUERY.sub(rf"\1{MASK}", _IN_ADDRESS.sub(rf"\1:{MASK}@", text))
