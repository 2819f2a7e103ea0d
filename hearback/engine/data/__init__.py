"""Tables, folds and batches."""
