"""Recipes, tasks, the training loop and a trained fold's files."""
