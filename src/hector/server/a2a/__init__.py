"""A2A whatever carries it: its dialects, what its operations do, cards."""
