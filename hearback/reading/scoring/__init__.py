"""Scores for recordings without labels: `score.py`, and `from hearback import Scorer`.

Read `scorer` first (from recordings and texts to scores). `inputs` and `recordings` read what is to
be scored; `rows` scores it with the models of `ensemble` (`scores`), and `faults` decides, by what
`decoder_evidence` and `acoustics` find, whether a score counts (`status`). `results` has the
scores; `outputs`, `screen` and `textgrid` write them. `statistics` tells whether recordings are
like those that a scorer learned from, and `abstention` measures which scores a person should check.
"""
