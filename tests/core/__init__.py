"""Tests of aphlict.core."""
