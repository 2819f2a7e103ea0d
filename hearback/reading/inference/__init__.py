"""Inference: from trained folds to submission.csv.

Read `submission` first (the steps of infer.py), then `ensemble_run` (the loop over folds and
batches). `batch_plan` puts clips into batches of one window length, `schedule` decides which folds
run, within a `time_limit` if there is one, and `model_group` runs folds side by side.
"""
