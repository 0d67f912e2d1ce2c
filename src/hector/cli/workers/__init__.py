"""`hector serve --workers N`: processes that serve one port, and the one that starts and watches them."""
