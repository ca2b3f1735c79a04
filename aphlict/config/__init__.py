"""The configuration: its table, and how it is read and checked."""
