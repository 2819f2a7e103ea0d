"""Baselines: what others do, on the same folds and for the same tables as our models.

`train` scores simple baselines (base rate, text, transcript, acoustics); `ablation` trains five
ways of comparing a recording with its expected text.
"""
