"""Targets for a coverage-guided fuzzer; see README.md."""
