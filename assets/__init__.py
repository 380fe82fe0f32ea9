"""Dagster assets, checks and the steps they share: read, call the domain, return figures."""
