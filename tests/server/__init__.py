"""Tests of connections and the two ports, over real sockets."""
