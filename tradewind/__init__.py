"""The domain of Tradewind: data, features, models, trading rules and the ledger.

Knows no orchestrator, tracker or model server; `pipelines/` composes those around it.
"""

__version__ = "0.1.0"
