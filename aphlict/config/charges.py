"""What is charged to `limits.commands`, in units of 20 µs: about what a small command takes.

docs/configuration.md has the table.
"""

BYTES = 512  # that come at once, beside a unit for each frame, head, or piece of one
NAMES = 32  # channels of a command
QUERY_NAMES = 16  # channels of an event stream or a poll
SUBSCRIPTIONS = 32  # whose newest messages are looked up: for a replay, and for `last` in an answer
MESSAGES = 24  # of the history that are looked at, and names to resume after
