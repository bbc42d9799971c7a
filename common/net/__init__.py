"""ZeroMQ sockets, their monitoring and limits, and the framing of messages."""
