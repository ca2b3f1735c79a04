"""Messages, subscriptions, history and delivery decisions, without sockets, event loop or clock."""
