"""The turn: a model and its tools, until there is an answer."""
