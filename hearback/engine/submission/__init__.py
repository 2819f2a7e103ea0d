"""submission.zip of any competition, and a dry run of it in an imitation of the runtime."""
