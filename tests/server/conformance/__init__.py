"""Conformance to the WebSocket protocol, tested by an independent suite."""
