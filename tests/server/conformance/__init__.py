"""The WebSocket protocol, examined by an independent suite."""
