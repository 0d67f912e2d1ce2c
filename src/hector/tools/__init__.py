"""What an agent can do: Python functions as tools."""
