"""What the ports serve: publishing on the admin port, browsers on the client port."""
