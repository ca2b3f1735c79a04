"""Targets for a fuzzer that is guided by coverage; README.md says how to run them."""
