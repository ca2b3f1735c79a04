"""Tests of connections and listeners, over real sockets."""
