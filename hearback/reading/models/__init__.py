"""The models of the reading competition."""
