"""Tests that the manual matches the code: its examples, links and tables."""
