"""What the windows of a row say together: evidence, notes, and the probabilities of its words."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from hearback.reading.passages.text_split import WordRange
from hearback.reading.scoring import rows
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.words import said_probabilities
from tests.reading.passages.test_rows import source_of, two_windows
from tests.toy import spoken


def ensemble(**attributes: Any) -> LoadedEnsemble:
    return cast(LoadedEnsemble, SimpleNamespace(speed_by_grade=(1.0,) * 4, **attributes))


def test_speech_in_one_window_is_enough() -> None:
    noise, speech = (-0.1, 6.0, -3.0), (-5.0, 1.0, -0.5)
    evidence = {
        number: DecoderEvidence(n_words, *values, times=np.zeros((n_words, 2)))
        for number, (n_words, values) in enumerate([(3, noise), (2, speech), (1, noise)])
    }
    of_windows = source_of({text: spoken("boy") for text in ("a b c", "d e", "boy")})
    passages = replace(two_windows(), source=of_windows)
    merged = rows._merge_evidence(ensemble(), passages, evidence)
    assert merged[0].n_words == 5
    assert not merged[0].is_no_speech and not merged[0].is_not_understood
    assert merged[1].is_no_speech


def test_words_in_no_window_are_in_a_note() -> None:
    passages = two_windows()
    assert not rows._describe_unread(passages, 0, [0, 1])
    first, second, third = passages.windows
    windows = (
        replace(first, runs=(WordRange(1, 2),)),
        replace(second, runs=(WordRange(4, 5),)),
        third,
    )
    assert rows._describe_unread(replace(passages, windows=windows), 0, [0, 1]) == [
        "word 1 of 5 of the text is not recognised",
        "words 3 to 4 of 5 of the text are not recognised",
    ]


def test_a_word_is_not_likelier_than_missed_ones_around_it() -> None:
    probabilities = np.array([[[0.9, 0.9], [0.1, 0.9], [0.1, 0.9], [np.nan, 0.9]]])
    config = SimpleNamespace(words=SimpleNamespace(apply=lambda log_odds: log_odds))
    found = rows._word_probabilities(ensemble(config=config), probabilities)
    assert found is not None and found[0, 0] < 0.5
    np.testing.assert_array_equal(found, said_probabilities(probabilities))
