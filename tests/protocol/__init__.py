"""Tests of the protocol without sockets."""
