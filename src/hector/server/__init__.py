"""What others reach: A2A and its transports, sessions to look at, and who may."""
