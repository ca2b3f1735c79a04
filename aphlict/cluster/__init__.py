"""The other nodes: what each is sent, how, and what becomes of it when one is away."""
