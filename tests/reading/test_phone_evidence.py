"""What a recogniser of phones hears of texts, from log-probabilities that are built by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from hearback.engine.phones.edits import edit_ratios
from hearback.engine.whisper.tokenizer import TokenizedText
from hearback.reading.models.phone_head import FEATURES, PhoneEvidence, PhoneHead, Recognition
from hearback.reading.window_batches import UNKNOWN, LabelledText, TextBatch, collate_texts

BLANK, N_TOKENS, WIDTH = 7, 8, 4
ALTERNATIVES = torch.tensor([1, 2, 3, 4, 5, 6])
FRAMES = 3  # of each phone that is said

Words = Sequence[Sequence[int]]


def text_of(words: Words) -> LabelledText:
    tokens = [token for word in words for token in word]
    word_ids = [number for number, word in enumerate(words) for _ in word]
    tokenized = TokenizedText(np.array([*tokens, BLANK]), np.array([*word_ids, len(words)]))
    unknown = np.full(len(words) + 1, UNKNOWN, np.float32)
    return LabelledText(tokenized, unknown[1:], unknown)


def spoken(phones: Sequence[int], certainty: float = 0.9) -> torch.Tensor:
    """Return log-probabilities, (frames, tokens): each phone, and a blank after it."""
    frames = [token for phone in phones for token in (*[phone] * FRAMES, BLANK)]
    probs = torch.full((len(frames), N_TOKENS), (1 - certainty) / (N_TOKENS - 1))
    probs[torch.arange(len(frames)), frames] = certainty
    return probs.log()


def hear(phones: Sequence[int], *texts: Words) -> tuple[PhoneEvidence, TextBatch]:
    """Return the evidence of one recording for some texts."""
    batch = collate_texts([[text_of(words)] for words in texts])
    log_probs = spoken(phones)[None].expand(len(texts), -1, -1)
    n_frames = torch.full((len(texts),), log_probs.shape[1])
    hidden = torch.arange(log_probs.shape[1]).float()[None, :, None].expand(len(texts), -1, WIDTH)
    edits = edit_ratios(
        log_probs,
        n_frames,
        batch.tokens[:, :-1],
        batch.n_targets - 1,
        blank=BLANK,
        alternatives=ALTERNATIVES,
    )
    heard = Recognition(log_probs, hidden, n_frames)
    return PhoneEvidence.of(edits, heard, batch, ALTERNATIVES), batch


def test_a_changed_phone_has_low_goodness_and_the_others_have_not() -> None:
    evidence, _ = hear([1, 2, 3, 4], [[1, 2], [3, 4]], [[1, 2], [5, 4]])
    said, changed = evidence.goodness
    assert (said[:4] > 1).all()
    assert changed[2] < -3
    # Another phone inserted after it would help as much as a substitution, so 4 suffers, too.
    assert changed.argmin() == 2
    assert (changed[:2] > changed[2] + 5).all()
    assert evidence.ratio[0] > evidence.ratio[1]
    assert evidence.ratio[1] < -5 < evidence.ratio[0]
    assert evidence.gap[0].max() <= 0
    assert evidence.gap[1, 2] < evidence.gap[0, 2] - 1


def test_a_phone_that_is_not_said_has_low_goodness() -> None:
    evidence, _ = hear([1, 2, 4], [[1, 2], [3, 4]])
    assert evidence.goodness[0].argmin() == 2
    assert evidence.goodness[0, 2] < -3


def test_a_phone_more_in_a_word_is_its_error_and_before_a_word_it_is_not() -> None:
    evidence, _ = hear([1, 2, 5, 3], [[1, 2, 3]], [[1, 2], [3]])
    # 5 is said before 3: within the word, or before a word that starts with 3.
    assert evidence.goodness[0, 2] < -3
    assert evidence.goodness[1, 2] > evidence.goodness[0, 2] + 3
    within, before = evidence.nothing_inserted
    torch.testing.assert_close(within, before)
    assert before.argmin() == 2 and before[2] < -3
    others, _ = hear([1, 2, 3], [[1, 2], [3]])
    assert (others.nothing_inserted[0] > 1).all()


def test_what_is_said_before_the_first_word_and_after_the_last_is_missing_there() -> None:
    first, _ = hear([5, 1, 2], [[1], [2]])
    assert first.nothing_inserted[0].argmin() == 0
    last, _ = hear([1, 2, 5], [[1], [2]])
    assert last.nothing_inserted[0].argmin() == 2  # the end of the text


def test_frames_and_hidden_states_are_those_of_the_phone() -> None:
    evidence, _ = hear([1, 2, 3], [[1, 2], [3]])
    frames = evidence.log_frames[0, :3].exp()
    torch.testing.assert_close(frames, torch.full((3,), float(FRAMES)), atol=0.3, rtol=0)
    centres = torch.tensor([1.0, 5.0, 9.0])
    torch.testing.assert_close(evidence.hidden[0, :3, 0], centres, atol=0.3, rtol=0)
    assert (evidence.hidden[0, 3] == 0).all() and evidence.goodness[0, 3] == 0  # the end


def test_a_text_s_evidence_does_not_depend_on_the_others_of_the_batch() -> None:
    alone, _ = hear([1, 2, 3], [[1, 2]])
    together, _ = hear([1, 2, 3], [[1, 2]], [[1, 2, 3], [4], [5, 6]])
    for name in ("goodness", "nothing_inserted", "gap", "log_frames"):
        found, expected = getattr(together, name)[0], getattr(alone, name)[0]
        torch.testing.assert_close(found[:2], expected[:2])
    torch.testing.assert_close(together.nothing_inserted[0, 2], alone.nothing_inserted[0, 2])
    torch.testing.assert_close(together.ratio[0], alone.ratio[0])


def test_scores_of_words_before_training_follow_the_evidence() -> None:
    torch.manual_seed(0)
    evidence, texts = hear([1, 2, 3, 4], [[1, 2], [3, 4]], [[1, 2], [5, 4]], [[1, 2, 3, 4]])
    head = PhoneHead(WIDTH, N_TOKENS, 0, 0.0).eval()
    scores, features = head(evidence, texts, torch.full((3,), 0.32), torch.zeros(3, 0))
    assert features.shape == (3, len(FEATURES))
    assert features.isfinite().all()
    said, changed = scores.said[:2].exp()
    assert said.min() > 0.9 and changed[0] > 0.8
    assert changed[1] < said[1] - 0.1
    assert scores.complete[0, :3].exp().min() > 0.9
    assert scores.said[2, 1] == scores.complete[2, 2] == 0  # padding


@pytest.mark.parametrize("phones", [[6, 6, 6, 6], [5]])
def test_other_speech_has_finite_evidence(phones: list[int]) -> None:
    evidence, _ = hear([1, *phones, 1], [[1], [1]], [[1, 2, 1], [3]])
    for values in (evidence.goodness, evidence.nothing_inserted, evidence.gap, evidence.hidden):
        assert values.isfinite().all()
    assert evidence.goodness[1, 1] < -3


def test_a_long_text_that_was_not_said_has_no_evidence_for_it() -> None:
    phones = [1 + index % 6 for index in range(60)]
    words = [phones[start : start + 3] for start in range(0, 60, 3)]
    batch = collate_texts([[text_of(words)]])
    log_probs = torch.full((1, 130, N_TOKENS), -60.0)
    log_probs[..., BLANK] = 0.0  # silence
    edits = edit_ratios(
        log_probs,
        torch.tensor([130]),
        batch.tokens[:, :-1],
        batch.n_targets - 1,
        blank=BLANK,
        alternatives=ALTERNATIVES,
    )
    recognition = Recognition(log_probs, torch.zeros(1, 130, WIDTH), torch.tensor([130]))
    evidence = PhoneEvidence.of(edits, recognition, batch, ALTERNATIVES)
    assert (evidence.goodness[0, :-1] < -8).all()
