"""Scores for recordings without labels: `score.py`, and `from hearback import Scorer`.

Read `scorer` first (from recordings and texts to scores), then `inputs` (the forms in which they
come). `status` has what may become of a row, `outputs`, `screen` and `textgrid` write the scores,
`statistics` tells whether recordings are like those that a scorer learned from, and `abstention`
measures which scores a person should check.
"""
