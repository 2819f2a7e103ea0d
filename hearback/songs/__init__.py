"""A second competition on the same engine: who sings in a snippet of a song.

Four classes (no voice, male, female, several singers), scored by accuracy. Steps run as
`python -m hearback.songs STEP`.
"""

SUBFOLDER = "songs"  # in data, store, assets and runs
