"""Tests of traces: staged failures, and what a trace costs."""
