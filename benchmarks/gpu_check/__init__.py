"""What only a GPU can show, in eight minutes at most: `python -m benchmarks.gpu_check --help`."""
