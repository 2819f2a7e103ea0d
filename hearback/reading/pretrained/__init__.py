"""Scorers that are shipped with the package, and the command that builds one.

    python -m hearback.reading.pretrained list
    python -m hearback.reading.pretrained show tiny.en
    python -m hearback.reading.pretrained build --name mine --data data

A shipped scorer is a folder in this one: `model_configs.json`, the folds (what training changed of
the backbone), `statistics.json` and `card.md`. Its backbone comes from the hub or a wheel, once
(`models.provide`). Read `build` first, then `assembling` and `writing`; `accuracy`, `sources` and
`card` make the model card.
"""
