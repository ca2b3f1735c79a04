"""Tests of the cluster, over real sockets."""
