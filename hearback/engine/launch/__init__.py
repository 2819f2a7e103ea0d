"""Train many folds in parallel: on this machine or on a Ray cluster."""
