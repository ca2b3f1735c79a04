"""Several processes as one node: a hub that orders messages, and edges that hold the browsers."""
