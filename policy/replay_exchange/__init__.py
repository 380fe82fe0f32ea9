"""A loopback exchange for tests and rehearsals, spoken to by an unmodified ccxt."""

from policy.replay_exchange.clock import ReplayClock
from policy.replay_exchange.faults import Fault, FaultKind, Faults, parse_fault
from policy.replay_exchange.server import ReplayExchange

__all__ = ["Fault", "FaultKind", "Faults", "ReplayClock", "ReplayExchange", "parse_fault"]
