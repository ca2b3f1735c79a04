"""A node of several processes."""
