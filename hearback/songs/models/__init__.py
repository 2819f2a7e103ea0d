"""The models of the songs: classifiers of a snippet."""
