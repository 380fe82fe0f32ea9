"""The looks at a challenger beside a champion, kept as tags of the challenger's version.

One tag a look, written before an alias moves and marked done after: a review that was killed in
between is carried out by the next one, and no look is ever counted twice or forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from registry.tracking import Tracking
from registry.versions import RegisteredVersion

PREFIX = "review_look."
VERDICT_TAG = "review"
TEXT_TAG = "review_text"
State = Literal["decided", "done"]


@dataclass(frozen=True)
class Look:
    """One look: the ``number``-th at this challenger beside the version ``champion``.

    ``start_ms`` and ``end_ms`` are the opens of the first and last bar compared, ``when_ms`` the
    market's time of the look. ``state`` is "decided" until the alias has followed.
    """

    champion: int
    number: int
    alpha: float
    verdict: str
    rows: int
    days: int
    start_ms: int
    end_ms: int
    when_ms: int
    text: str
    figures: Mapping[str, float]
    state: State = "decided"


def looks_of(challenger: RegisteredVersion, champion: int) -> list[Look]:
    """Return the looks at ``challenger`` beside a champion, oldest first."""
    rows = [
        json.loads(value)
        for name, value in challenger.tags.items()
        if name.startswith(f"{PREFIX}{champion}.")
    ]
    return sorted((Look(**row) for row in rows), key=lambda look: look.number)


def record_look(tracking: Tracking, challenger: RegisteredVersion, look: Look) -> None:
    """Write a look, replacing its earlier state, and what it says for people to read."""
    told = {
        f"{PREFIX}{look.champion}.{look.number}": json.dumps(asdict(look), sort_keys=True),
        VERDICT_TAG: look.verdict,
        TEXT_TAG: f"look {look.number} beside version {look.champion}: {look.text}",
    }
    with tracking.translated():
        for name, value in told.items():
            tracking.client.set_model_version_tag(
                challenger.name, str(challenger.version), name, value
            )
