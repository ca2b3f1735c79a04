"""Aphlict: a notification server that pushes published messages to the browsers that listen."""

__version__ = "1.0.0"
