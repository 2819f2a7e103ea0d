"""Models: classifiers of a snippet."""
