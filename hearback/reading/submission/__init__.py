"""submission.zip of the reading competition: packing, main.py and a dry run."""
