"""A second competition on the same core: whose voice sings in a snippet of a song.

Four classes (no voice, male, female, several people), scored by accuracy. What differs from spoken
reading is here, a module a matter; what does not is called from `hearback`. The steps are modules,
run as `python -m hearback.songs.steps.preprocess`: preprocess, train, check_models, get_config, infer.
"""

SUBFOLDER = "songs"  # in data, store, assets and runs
