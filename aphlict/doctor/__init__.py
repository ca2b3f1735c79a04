"""The doctor: walks the way of a message as a browser would, and says what is wrong on it."""
