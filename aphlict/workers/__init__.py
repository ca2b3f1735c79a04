"""The stream between the hub process of a node and its edges: a hub orders messages, edges serve clients."""
