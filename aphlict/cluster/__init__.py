"""Peers: queues, connections, and what their responses mean."""
