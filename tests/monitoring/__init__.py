"""Metrics in a real Prometheus: alerts and boards."""
