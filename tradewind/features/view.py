"""What a model sees now: the newest row of features, its deep window and its age.

Serving and the policy read features here and nowhere else. Features are causal, so a block
of time is computed once from the store and sliced at the clock: a row that closes later than
the clock is never handed out, and a replay over a full store costs a look-up a bar.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.clock import Clock, last_closed_bar, staleness_s
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._block import FeatureBlock, block_span, read_block
from tradewind.features._cross import references
from tradewind.features.definitions import DEEP, WIDE, feature_version
from tradewind.features.reading import read_features
from tradewind.features.samples import FeatureRow, rows_to_samples
from tradewind.market.schema import FUNDING_KIND
from tradewind.market.store import BarStore
from tradewind.models.base import Samples
from tradewind.settings import MS_PER_DAY, Settings
