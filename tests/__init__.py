"""Tests of the whole server, with real sockets and real processes."""
