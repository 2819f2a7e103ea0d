"""Many trainings at once: what is to be run, where, and what became of it."""
