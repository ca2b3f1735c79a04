"""Tests behind real proxies, with the configurations in conf/."""
