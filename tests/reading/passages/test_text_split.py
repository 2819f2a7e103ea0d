"""The dynamic programming that finds the words of each segment, with a fake likelihood."""

from collections.abc import Sequence

import numpy as np

from hearback.reading.passages.text_split import EXTRA_WORDS, WordRange, split_text


class FakeLikelihood:
    """Segments with known words: each word that fits costs 2 nats, each other one 12."""

    def __init__(self, text: str, said: Sequence[str]) -> None:
        self.words, self.said = text.split(), [each.split() for each in said]
        self.n_texts = 0

    def __call__(self, segment: int, starts: Sequence[int], n_words: int) -> np.ndarray:
        values = np.full((len(starts), 1 + n_words), -np.inf)
        self.n_texts += len(starts)
        for row, start in enumerate(starts):
            total, said = 0.0, self.said[segment]
            for n in range(min(n_words, len(self.words) - start) + 1):
                # The end costs more the more of the speech is left.
                values[row, n] = total - 1.0 - 4.0 * max(0, len(said) - n)
                if start + n < len(self.words):
                    fits = n < len(said) and said[n] == self.words[start + n]
                    total -= 2.0 if fits else 12.0
        return values


def split(text: str, said: Sequence[str]) -> list[str]:
    words = text.split()
    likelihood = FakeLikelihood(text, said)
    seconds = [max(1.0, 0.4 * len(each.split())) for each in said]
    ranges = split_text(len(words), seconds, likelihood)
    return [" ".join(words[each.start : each.stop]) for each in ranges]


TEXT = "once there was a fox who lived in the deep dark wood with all of his many friends"


def test_the_text_is_split_as_it_was_read() -> None:
    said = [
        "once there was a fox",
        "who lived in the deep dark wood",
        "with all of his many friends",
    ]
    assert split(TEXT, said) == said


def test_a_wrong_word_stays_where_it_should_have_been_said() -> None:
    said = [
        "once there was a cat",
        "who lived in the deep dark wood",
        "with all of his many friends",
    ]
    assert split(TEXT, said)[:2] == ["once there was a fox", said[1]]


def test_a_segment_with_other_speech_or_noise_is_empty() -> None:
    said = [
        "once there was a fox",
        "",
        "who lived in the deep dark wood with all of his many friends",
    ]
    assert split(TEXT, said) == said


def test_words_that_nobody_said_belong_to_the_segment_before() -> None:
    said = ["once there was a fox", "with all of his many friends"]
    first, second = split(TEXT, said)
    assert first == "once there was a fox who lived in the deep dark wood"
    assert second == said[1]


def test_unclear_words_that_were_skipped_stay_in_their_segment() -> None:
    # "who lived in" costs more than its reward, and less in the second segment than in the first.
    costs = np.full((2, 18), 12.0)
    costs[0, :5] = costs[1, 5:] = 2.0
    costs[1, 5:8] = 7.0

    def likelihood(segment: int, starts: Sequence[int], n_words: int) -> np.ndarray:
        values = np.full((len(starts), 1 + n_words), -np.inf)
        for row, start in enumerate(starts):
            of_words = costs[segment, start : start + n_words]
            values[row, : 1 + len(of_words)] = -np.concatenate([[0.0], np.cumsum(of_words)])
        return values

    ranges = split_text(18, [3.0, 6.0], likelihood)
    assert ranges == [WordRange(0, 5), WordRange(5, 18)]


def test_a_segment_has_at_most_twice_as_many_words_a_second_as_the_recording() -> None:
    words = [f"word{number}" for number in range(40)]
    fake = FakeLikelihood(" ".join(words), [" ".join(words[:20]), " ".join(words[20:])])
    asked: dict[int, int] = {}

    def likelihood(segment: int, starts: Sequence[int], n_words: int) -> np.ndarray:
        asked.setdefault(segment, n_words)
        return fake(segment, starts, n_words)

    split_text(40, [2.0, 38.0], likelihood)
    assert asked == {0: 2 * 2 + EXTRA_WORDS, 1: 40}


def test_what_is_not_read_at_the_end_is_in_no_segment() -> None:
    said = ["once there was a fox", "who lived in"]
    assert split(TEXT, said) == said


def test_some_words_skipped_at_the_beginning_are_in_the_first_segment() -> None:
    said = ["who lived in the deep dark wood", "with all of his many friends"]
    assert split(TEXT, said) == [f"once there was a fox {said[0]}", said[1]]


def test_one_or_two_skipped_words_are_in_the_first_or_last_segment() -> None:
    said = ["there was a fox", "who lived in the deep dark wood with all of his"]
    assert split(TEXT, said) == [f"once {said[0]}", f"{said[1]} many friends"]


def test_every_word_is_in_at_most_one_range_whatever_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    for n_words in (1, 2, 9, 60):
        for n_segments in (1, 2, 5):

            def noise(_: int, starts: Sequence[int], most: int, n: int = n_words) -> np.ndarray:
                values = rng.normal(-20, 20, (len(starts), 1 + most))
                room = n - np.array(starts)[:, None]
                return np.where(np.arange(1 + most) <= room, values, -np.inf)

            ranges = split_text(n_words, [3.0] * n_segments, noise)
            assert len(ranges) == n_segments
            words = [word for each in ranges for word in range(each.start, each.stop)]
            assert words == sorted(set(words)) and set(words) <= set(range(n_words))


def test_a_long_text_is_split_with_few_candidates() -> None:
    words = [f"word{number}" for number in range(400)]
    said = [" ".join(words[at : at + 20]) for at in range(0, 400, 20)]
    likelihood = FakeLikelihood(" ".join(words), said)
    ranges = split_text(400, [8.0] * 20, likelihood)
    assert ranges == [WordRange(at, at + 20) for at in range(0, 400, 20)]
    assert likelihood.n_texts < 8 * 20
