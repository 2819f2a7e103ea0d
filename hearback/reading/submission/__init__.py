"""The reading competition's submission.zip: packing, main.py and a dry run."""
