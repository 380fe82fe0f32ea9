"""Serving: champions behind HTTP (BentoML), hot swap, prediction log, metrics.

`predictor`, `models`, `batching`, `prediction_log` and `runtime` know no web framework;
`http` holds the GET endpoints (FastAPI), `service` the BentoML service that mounts them.
"""
