"""Working memory: token counts, and what part of a session a model is sent."""
