"""Wire formats without I/O: bytes in, values and bytes out."""
