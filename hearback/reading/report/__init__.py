"""The page of the reading competition: what is known of trained models, or of new recordings."""
