"""Tests of TLS: certificates made on the spot, and real handshakes."""
