"""One self-contained HTML page that shows a competition's results, and plays its recordings."""
