"""submission.zip: packing, its main.py, and a dry run."""
