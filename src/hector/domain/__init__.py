"""The nouns of Hector and their interfaces; standard library only."""
