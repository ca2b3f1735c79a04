"""Aphlict behind the real proxies, with the configurations that it ships."""
