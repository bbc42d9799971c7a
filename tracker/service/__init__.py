"""The running tracker: sockets, command loop, publisher and deferred work."""
