"""Processes that load data: where they are not forked, their dataset is pickled.

They never are on macOS and Windows, and from Python 3.14 on not on Linux either.
"""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hearback.engine.audio.store import FileStore
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.reading.pairs import Example, PairDataset, PairSource
from train_modeltok import RECIPE as TOKENS


def test_a_dataset_is_passed_on_without_its_recordings(
    make_source: Callable[[int], PairSource], tokenizer: Path
) -> None:
    source = make_source(12)
    examples = [Example(row, source.texts[row], float(source.labels[row])) for row in range(12)]
    dataset = PairDataset(source, examples, TOKENS.pair, text_tokenizer=TextTokenizer(tokenizer))
    pickled = pickle.dumps(dataset)
    assert isinstance(source.store, FileStore)
    assert len(pickled) < source.store.data_path.stat().st_size / 2
    copied = pickle.loads(pickled)
    for before, after in ((dataset[index], copied[index]) for index in range(len(dataset))):
        np.testing.assert_array_equal(before.waveform, after.waveform)
        assert before.row == after.row
