"""What a retraining does, step by step; jobs and assets both call these.

Each step reads finished work, calls the domain, and leaves finished work behind. Running
a step again with the same inputs changes nothing.
"""

from assets.steps.judge import Judgement, evaluate
from assets.steps.release import Drift, Release, measure_drift, promote
from assets.steps.train import EpochLog, Plan, RunLog, fit, plan_retrain, prepare, walk_forward

__all__ = [
    "Drift",
    "EpochLog",
    "Judgement",
    "Plan",
    "Release",
    "RunLog",
    "evaluate",
    "fit",
    "measure_drift",
    "plan_retrain",
    "prepare",
    "promote",
    "walk_forward",
]
