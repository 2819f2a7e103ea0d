"""The page of the songs competition: what is known of trained models, or of new snippets."""
