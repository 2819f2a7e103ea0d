"""Ensembles: stacking, calibration, and the choice of models within a time limit."""
