"""Measurements: each module prints what it finds."""
