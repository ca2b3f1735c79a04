"""The two ports: accepting connections, HTTP and WebSocket, publishing and subscribing."""
