"""A second competition on the same engine: who sings in a snippet of a song.

Four classes (no voice, male, female, several singers), scored by accuracy. Steps run as
`python -m hearback.songs STEP`.
"""

REPORT_COMMAND = "python -m hearback.songs report"  # writes a page

SUBFOLDER = "songs"  # in data, store, assets and runs

GROUPINGS = ("singer",)  # columns by which rows can be grouped into folds

# The folders that a step's flags name, and their help texts.
FOLDERS = {
    "data": "folder of the labels and snippets",
    "store": "folder of the stored audio and features",
    "assets": "folder of the trained folds",
}
