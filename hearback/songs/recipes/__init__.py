"""The recipes, a module each; `python -m` trains one."""
