"""Access tokens (JWT): keys, verification, and the grants that tokens contain."""
