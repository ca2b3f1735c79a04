"""Sockets: accepting them, reading, sending, and giving up on them."""
