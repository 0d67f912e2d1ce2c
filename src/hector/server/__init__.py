"""The HTTP surface: REST in A2A's dialects, sessions, agent cards."""
