"""Sessions and turns in a database."""
