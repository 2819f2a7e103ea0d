"""The dynamic programming that finds the words of each segment, with a fake likelihood."""

from collections.abc import Sequence

import numpy as np
import pytest

from hearback.reading.passages.jumps import Likelihoods, Runs, WordRange
from hearback.reading.passages.text_split import EXTRA_WORDS, split_text


class FakeLikelihood:
    """Segments with known words: each word that fits costs 2 nats, each other one 12.

    Words fit if they are the segment's first ones, or follow on the words that are given as said.
    """

    def __init__(self, text: str, said: Sequence[str]) -> None:
        self.words, self.said = text.split(), [each.split() for each in said]
        self.n_texts = 0

    def __call__(
        self, segment: int, starts: Sequence[int], n_words: int, said: Runs = ()
    ) -> Likelihoods:
        begins, whole = np.full((2, len(starts), 1 + n_words), -np.inf)
        self.n_texts += len(starts)
        context = [word for run in said for word in self.words[run.start : run.stop]]
        left = after(context, self.said[segment])
        for row, start in enumerate(starts):
            total = 0.0
            for n in range(min(n_words, len(self.words) - start) + 1):
                begins[row, n] = total
                # The end costs more the more of the speech is left.
                whole[row, n] = total - 1.0 - 4.0 * max(0, len(left) - n)
                if start + n < len(self.words):
                    fits = n < len(left) and left[n] == self.words[start + n]
                    total -= 2.0 if fits else 12.0
        return Likelihoods(begins, whole)


def after(context: list[str], said: list[str]) -> list[str]:
    """Return the words of `said` after the first place where the context is said."""
    for at in range(len(said) - len(context) + 1):
        if said[at : at + len(context)] == context:
            return said[at + len(context) :]
    return said[len(context) :]


def split(text: str, said: Sequence[str]) -> list[str]:
    words = text.split()
    likelihood = FakeLikelihood(text, said)
    seconds = [max(1.0, 0.4 * len(each.split())) for each in said]
    found = split_text(len(words), seconds, likelihood)
    return [
        " ".join(word for run in runs for word in words[run.start : run.stop]) for runs in found
    ]


def numbered(first: int, stop: int) -> str:
    return " ".join(f"w{number}" for number in range(first, stop))


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


def test_a_few_words_that_nobody_said_belong_to_the_segment_before() -> None:
    said = ["once there was a fox", "with all of his many friends"]
    first, second = split(TEXT, said)
    assert first == "once there was a fox who lived in the deep dark wood"
    assert second == said[1]


@pytest.mark.parametrize("n_skipped", [8, 10, 25, 40, 45, 60, 200])
def test_words_skipped_between_two_segments_are_in_neither(n_skipped: int) -> None:
    said = [numbered(0, 20), numbered(20 + n_skipped, 40 + n_skipped)]
    text = numbered(0, 40 + n_skipped)
    assert split(text, said) == said
    assert split(text, [said[0], "", said[1]]) == [said[0], "", said[1]]


@pytest.mark.parametrize("n_skipped", [8, 10, 25, 40, 45, 60, 200])
def test_words_skipped_inside_a_segment_are_not_in_it(n_skipped: int) -> None:
    first, last = 35 + n_skipped, 70 + n_skipped
    said = [
        numbered(0, 20),
        f"{numbered(20, 35)} {numbered(first, first + 15)}",
        numbered(first + 15, last),
    ]
    assert split(numbered(0, last), said) == said
    assert split(numbered(0, last), said[1:2]) == said[1:2]


def test_a_few_words_skipped_inside_a_segment_stay_in_it() -> None:
    said = f"{numbered(0, 20)} {numbered(25, 50)}"
    assert split(numbered(0, 50), [said]) == [numbered(0, 50)]


def test_several_skips_inside_a_segment_are_found() -> None:
    said = " ".join(numbered(first, first + 15) for first in (0, 30, 90))
    assert split(numbered(0, 105), [said]) == [said]


@pytest.mark.parametrize("first", [8, 20, 39, 40, 60, 200])
def test_what_is_not_read_at_the_beginning_is_in_no_segment(first: int) -> None:
    said = [numbered(first, first + 20), numbered(first + 20, first + 40)]
    assert split(numbered(0, first + 40), said) == said


def test_a_text_that_was_not_read_is_the_first_segments() -> None:
    other = "it rained all day so we stayed at home"
    assert split(numbered(0, 300), [other, other]) == [numbered(0, 300), ""]
    # A few words that happen to be in the text are no reason to jump there.
    said = [numbered(0, 20), f"{other} w150 w151 {other}", numbered(20, 40)]
    assert split(numbered(0, 40), said) == [said[0], "", said[2]]


def test_unclear_words_that_were_skipped_stay_in_their_segment() -> None:
    # "who lived in" costs more than its reward, and less in the second segment than in the first.
    costs = np.full((2, 18), 12.0)
    costs[0, :5] = costs[1, 5:] = 2.0
    costs[1, 5:8] = 7.0

    def likelihood(
        segment: int, starts: Sequence[int], n_words: int, said: Runs = ()
    ) -> Likelihoods:
        values = np.full((len(starts), 1 + n_words), -np.inf)
        for row, start in enumerate(starts):
            of_words = costs[segment, start : start + n_words]
            values[row, : 1 + len(of_words)] = -np.concatenate([[0.0], np.cumsum(of_words)])
        return Likelihoods(values, values)

    found = split_text(18, [3.0, 6.0], likelihood)
    assert found == [(WordRange(0, 5),), (WordRange(5, 18),)]


def test_a_segment_has_at_most_twice_as_many_words_a_second_as_the_recording() -> None:
    words = [f"word{number}" for number in range(40)]
    fake = FakeLikelihood(" ".join(words), [" ".join(words[:20]), " ".join(words[20:])])
    asked: dict[int, int] = {}

    def likelihood(
        segment: int, starts: Sequence[int], n_words: int, said: Runs = ()
    ) -> Likelihoods:
        asked.setdefault(segment, n_words)
        return fake(segment, starts, n_words, said)

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

            def noise(
                segment: int,
                starts: Sequence[int],
                n_words: int,
                said: Runs = (),
                n: int = n_words,
            ) -> Likelihoods:
                values = rng.normal(-20, 20, (2, len(starts), 1 + n_words))
                room = n - np.array(starts)[:, None]
                return Likelihoods(*np.where(np.arange(1 + n_words) <= room, values, -np.inf))

            found = split_text(n_words, [3.0] * n_segments, noise)
            assert len(found) == n_segments
            ranges = [run for runs in found for run in runs]
            assert all(len(run) for run in ranges)
            words = [word for run in ranges for word in range(run.start, run.stop)]
            assert words == sorted(set(words)) and set(words) <= set(range(n_words))


def test_a_long_text_is_split_with_few_candidates() -> None:
    words = [f"word{number}" for number in range(400)]
    said = [" ".join(words[at : at + 20]) for at in range(0, 400, 20)]
    likelihood = FakeLikelihood(" ".join(words), said)
    found = split_text(400, [8.0] * 20, likelihood)
    assert found == [(WordRange(at, at + 20),) for at in range(0, 400, 20)]
    assert likelihood.n_texts < 8 * 20
