"""What a training will take, before it is started: parameters, memory, disk, FLOPs and hours."""
