"""Benchmarks (`python -m benchmarks`) and long-running load tests (`python -m benchmarks.soak`)."""
