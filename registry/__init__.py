"""MLflow: runs, registered versions, aliases. Knows the domain, and nothing above it."""
