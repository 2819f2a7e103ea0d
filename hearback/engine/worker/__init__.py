"""Worker processes with a Python environment of their own."""
