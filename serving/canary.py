"""Which decisions a canary answers: a share of them, by hash, the same ones however often asked."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from serving.answering import Ready
from serving.expiry import Expiry
from serving.models import Snapshot
from tradewind.contracts import CANARY


def drawn(decision_id: str, share: float) -> bool:
    """Return whether a decision is among the ``share`` (0..1) that falls to the canary."""
    digest = hashlib.sha256(f"canary {decision_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def with_canary(snapshot: Snapshot, expiry: Expiry, ready: Ready) -> Ready | None:
    """Return ``ready`` with one family's canary in its champion's place, None without one.

    Of several canaries the first in the order of the members answers: a verdict is of one
    version. The champions stand by in ``instead``.
    """
    for family, champion in ready.members.items():
        model = snapshot.beside(champion, ready.ask.symbol, CANARY)
        if model is not None and not expiry.expired(model):
            members = {**ready.members, family: model}
            return replace(ready, members=members, served_by=CANARY, instead=ready)
    return None
