"""The WebSocket protocol (RFC 6455) without sockets: bytes in, messages and bytes out."""
