"""Tokens: JSON Web Tokens that say which channels a browser may have, and the keys that they are proven with."""
