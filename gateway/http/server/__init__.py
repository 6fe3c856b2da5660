"""The HTTP server: sockets, connections, limits of connections."""
