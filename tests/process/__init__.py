"""Tests of the processes: real ones, with real signals."""
