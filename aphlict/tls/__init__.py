"""TLS: certificates and their checks, and the contexts that use them."""
