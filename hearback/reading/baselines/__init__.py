"""Baselines for the models, on the same folds and in the same tables.

`train` scores simple baselines (base rate, text, transcript, acoustics); `ablation` trains five
ways of comparing a recording with its expected text.
"""
