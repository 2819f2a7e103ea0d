"""submission.zip of the songs competition: packing, main.py and a dry run."""
