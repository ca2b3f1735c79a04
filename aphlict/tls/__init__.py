"""TLS: what is proven about a certificate, and the contexts that use it."""
