"""Everything as one command: MLflow, Dagster, serving and the paper engine, watched."""
