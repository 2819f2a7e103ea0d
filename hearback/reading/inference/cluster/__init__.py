"""Inference on a Ray cluster: the same tables as of one process, to the byte on equal hardware.

The process that writes the tables (`run`) imports no torch and holds no sound. Workers (`worker`)
decode the recordings in chunks of the table, and tell the length of each window. From these, `run`
plans the batches that one process would run (`batch_plan`): a batch is never split, so that what a
model gets is the same. Some batches are a shard (`shards`), which a worker scores with the models
that it has loaded; what the folds say is summed in files (`sums`).
"""
