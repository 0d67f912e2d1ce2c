"""The HTTP port: the application, its routes, and the sockets it is served from."""
