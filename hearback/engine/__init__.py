"""The engine: training, evaluation, ensembles and submissions, independent of any competition."""
