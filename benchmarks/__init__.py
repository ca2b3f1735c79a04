"""What the server costs and bears, measured: `python -m benchmarks` and `python -m benchmarks.soak`."""
