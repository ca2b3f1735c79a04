"""The browser client, in real browsers against real servers."""
