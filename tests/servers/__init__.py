"""Ports and what they serve, over real sockets."""
