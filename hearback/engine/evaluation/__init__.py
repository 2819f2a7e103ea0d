"""Evaluation of out-of-fold predictions: metrics, bootstrap, and folds that stand out."""
