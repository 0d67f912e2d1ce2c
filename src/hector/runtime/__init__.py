"""Config -> running agents: the one place that knows every package below."""
