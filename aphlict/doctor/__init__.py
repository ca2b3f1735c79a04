"""End-to-end checks: a test message along the full path, and a diagnosis of the first failure."""
