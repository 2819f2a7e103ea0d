"""From evidence for tokens to scores of words and texts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hearback.engine.whisper.tokenizer import Reading
from hearback.reading.models.token_head import FEATURES, TokenEvidence, TokenHead, TokenScores
from hearback.reading.window_batches import UNKNOWN, Text, TextBatch, collate_texts

WIDTH = 8
PROMPT, END = (90, 91), 99
TEXTS = ((2, 1, 3), (1,), (4, 1))  # tokens of each word


def make_text(tokens_of_words: Sequence[int], known: float = 1.0) -> Text:
    n_words = len(tokens_of_words)
    words = np.repeat(np.arange(n_words + 1), [*tokens_of_words, 1])
    tokens = np.array([*PROMPT, *range(len(words) - 1), END])
    said = np.full(n_words, known, np.float32)
    return Text(Reading(tokens, words), said, np.full(n_words + 1, known, np.float32))


def make_texts(*texts: Sequence[int]) -> TextBatch:
    return collate_texts([[make_text(text)] for text in texts])


def make_heard(texts: TextBatch, seed: int = 0) -> TokenEvidence:
    """Random states, and log-probabilities below those of the likeliest tokens."""
    generator = torch.Generator().manual_seed(seed)
    best = -torch.rand(texts.words.shape, generator=generator)
    return TokenEvidence(
        hidden=torch.randn(*texts.tokens.shape, WIDTH, generator=generator),
        log_probabilities=best - 4 * torch.rand(texts.words.shape, generator=generator),
        best=best,
    )


def make_head(*, trained: bool = False) -> TokenHead:
    """A head at its start, or one whose every weight has moved away from there."""
    torch.manual_seed(0)
    head = TokenHead(WIDTH, 2, dropout=0.3).eval()
    if trained:
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return head


def score(head: TokenHead, heard: TokenEvidence, texts: TextBatch) -> tuple[TokenScores, Tensor]:
    n_texts = len(texts.n_words)
    seconds, context = torch.linspace(1, 3, n_texts), torch.rand(n_texts, 2, generator=seeded())
    return head(heard, texts, seconds, context)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_word_s_log_probability_is_the_sum_over_its_tokens() -> None:
    texts = make_texts(*TEXTS)
    heard = make_heard(texts)
    scores, _ = score(make_head(), heard, texts)
    token = F.logsigmoid(heard.log_probabilities - heard.best + 2)
    assert scores.said.shape == (3, 3)
    assert scores.complete.shape == (3, 4)
    for line, tokens_of_words in enumerate(TEXTS):
        has_pretrained_init = np.cumsum([0, *tokens_of_words])
        for word, (start, end) in enumerate(pairwise(has_pretrained_init)):
            torch.testing.assert_close(scores.said[line, word], token[line, start:end].sum())
        # Something missing shows at the first token of the word after it, or at the end of text.
        torch.testing.assert_close(
            scores.complete[line, : len(has_pretrained_init)], token[line, has_pretrained_init]
        )
        assert not scores.said[line, len(tokens_of_words) :].any()
        assert not scores.complete[line, len(has_pretrained_init) :].any()


def pollute(heard: TokenEvidence, texts: TextBatch) -> TokenEvidence:
    """Change all that stands after the ends of the texts."""
    n_targets = texts.words.shape[1]
    padding = torch.arange(n_targets) >= texts.n_targets[:, None]
    hidden = heard.hidden.clone()
    hidden[:, texts.n_prompt :][padding] = 50.0
    return TokenEvidence(
        hidden,
        heard.log_probabilities.masked_fill(padding, -1e4),
        heard.best.masked_fill(padding, 1e3),
    )


def test_what_stands_after_a_text_never_counts() -> None:
    texts = make_texts(*TEXTS)
    heard = make_heard(texts)
    head = make_head(trained=True)
    for one, other in zip(
        flat(score(head, heard, texts)),
        flat(score(head, pollute(heard, texts), texts)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def flat(scored: tuple[TokenScores, Tensor]) -> list[Tensor]:
    scores, features = scored
    return [scores.logits, scores.said, scores.complete, features]


def test_a_text_s_scores_do_not_depend_on_its_batch_mates() -> None:
    texts = make_texts(*TEXTS)
    heard = make_heard(texts)
    head = make_head(trained=True)
    seconds, context = torch.tensor([1.0, 2.0, 3.0]), torch.rand(3, 2, generator=seeded())
    together = flat(head(heard, texts, seconds, context))
    for line, tokens_of_words in enumerate(TEXTS):
        alone = make_texts(tokens_of_words)
        n_targets = int(alone.n_targets)
        own = TokenEvidence(
            heard.hidden[[line], : len(PROMPT) + n_targets],
            heard.log_probabilities[[line], :n_targets],
            heard.best[[line], :n_targets],
        )
        scored = flat(head(own, alone, seconds[[line]], context[[line]]))
        for all_texts, one in zip(together, scored, strict=True):
            # One logit is -0.06, what is left of features of up to 15, whose rounding is the
            # processor's own: 1.1e-5 on one with AMX. Beyond that, as close as ever.
            own_part = all_texts[line].view(-1)[: one.numel()]
            torch.testing.assert_close(own_part, one.view(-1), atol=5e-5, rtol=1.3e-6)


@pytest.mark.parametrize("place", range(6))
def test_an_unlikely_token_lowers_its_own_word_and_no_other(place: int) -> None:
    texts = make_texts(TEXTS[0])
    heard = make_heard(texts)
    lowered = heard.log_probabilities.clone()
    lowered[0, place] -= 5
    head = make_head()
    before, features = score(head, heard, texts)
    after, features_after = score(head, replace(heard, log_probabilities=lowered), texts)
    word = int(texts.words[0, place])
    others = [other for other in range(3) if other != word]
    assert after.said[0, word] < before.said[0, word] - 2
    torch.testing.assert_close(after.said[0, others], before.said[0, others])
    changed = (after.complete != before.complete)[0].nonzero().flatten().tolist()
    assert changed == ([word] if place in (0, 2, 3) else [])
    # All features but those of the end, of the lengths and of the context go down, "misses" up.
    moved = dict(zip(FEATURES, (features_after - features)[0].tolist(), strict=False))
    assert moved["misses"] > 0
    for name in (*FEATURES[:4], "log-odds that every word was said"):
        assert moved[name] < 0, name
    for name in ("end's log-probability", "end's evidence", "log tokens", "log seconds a token"):
        assert moved[name] == 0, name


def test_an_unlikely_end_says_that_the_last_word_is_missing_and_lowers_no_word() -> None:
    texts = make_texts(TEXTS[0])
    heard = make_heard(texts)
    lowered = heard.log_probabilities.clone()
    lowered[0, 6] -= 5
    head = make_head()
    before, features = score(head, heard, texts)
    after, features_after = score(head, replace(heard, log_probabilities=lowered), texts)
    torch.testing.assert_close(after.said, before.said)
    torch.testing.assert_close(after.complete[:, :3], before.complete[:, :3])
    assert after.complete[0, 3] < before.complete[0, 3] - 2
    moved = dict(zip(FEATURES, (features_after - features)[0].tolist(), strict=False))
    assert moved["mean log-probability"] == moved["misses"] == 0
    assert moved["end's log-probability"] == pytest.approx(-5, abs=1e-4)


def test_the_correction_starts_at_nothing_and_learns() -> None:
    texts = make_texts(*TEXTS)
    heard = make_heard(texts)
    other = replace(heard, hidden=torch.randn(heard.hidden.shape))
    head = make_head()
    for one, another in zip(
        flat(score(head, heard, texts)), flat(score(head, other, texts)), strict=True
    ):
        torch.testing.assert_close(one, another, atol=0, rtol=0)
    scores, _ = score(head, heard, texts)
    (scores.logits.sum() + head.word_losses(scores, texts).sum()).backward()
    last = head.correction[-1]
    assert isinstance(last, torch.nn.Linear) and last.weight.grad is not None
    assert (last.weight.grad.abs().amax(1) > 0).all()  # the word's output and the gap's


def test_the_correction_sees_the_state_before_a_token_and_after_it() -> None:
    texts = make_texts((1, 1, 1))
    heard = make_heard(texts)
    head = make_head(trained=True)
    before, _ = score(head, heard, texts)
    # The state at the second word's token: after it, and before the third word's.
    hidden = heard.hidden.clone()
    hidden[0, len(PROMPT) + 1] += torch.linspace(-2, 2, WIDTH)
    after, _ = score(head, replace(heard, hidden=hidden), texts)
    moved = (after.said != before.said)[0].tolist()
    assert moved == [False, True, True]


def test_a_context_and_the_seconds_reach_the_features() -> None:
    texts = make_texts((2, 1))
    heard = make_heard(texts)
    head = make_head()
    context = torch.tensor([[0.25, 0.75]])
    _, features = head(heard, texts, torch.tensor([6.0]), context)
    assert features.shape == (1, len(FEATURES) + 2)
    named = dict(zip(FEATURES, features[0].tolist(), strict=False))
    assert named["log tokens"] == pytest.approx(np.log(3))
    assert named["log seconds a token"] == pytest.approx(np.log(2))
    torch.testing.assert_close(features[:, len(FEATURES) :], context)


def known_of(texts: TextBatch, said: Sequence[float], complete: Sequence[float]) -> TextBatch:
    return replace(texts, said=torch.tensor([said]), complete=torch.tensor([complete]))


def test_words_are_judged_by_their_log_loss_where_it_is_known() -> None:
    texts = make_texts((2, 1))
    head = make_head()
    scores, _ = score(head, make_heard(texts), texts)
    said, complete = scores.said.exp()[0].tolist(), scores.complete.exp()[0].tolist()

    def loss(known_said: Sequence[float], known_complete: Sequence[float]) -> float:
        known = known_of(texts, known_said, known_complete)
        return head.word_losses(scores, known).item()

    nothing, u = [UNKNOWN] * 3, UNKNOWN
    assert loss([u, u], nothing) == 0
    assert loss([1, u], nothing) == pytest.approx(-np.log(said[0]), abs=1e-5)
    assert loss([u, 0], nothing) == pytest.approx(-np.log(1 - said[1]), abs=1e-5)
    assert loss([u, u], [u, 0, u]) == pytest.approx(-np.log(1 - complete[1]), abs=1e-5)
    assert loss([u, u], [u, u, 1]) == pytest.approx(-np.log(complete[2]), abs=1e-5)
    parts = loss([1, u], nothing) + loss([u, 0], nothing) + loss([u, u], [u, 0, u])
    assert loss([1, 0], [u, 0, u]) == pytest.approx(parts, abs=1e-5)


def test_word_losses_are_those_of_each_text_and_have_finite_gradients() -> None:
    texts = make_texts(*TEXTS)
    heard = make_heard(texts)
    certain = heard.log_probabilities.clone()
    certain[0, 0] = -1e4  # no doubt that it was not said
    certain.requires_grad_()
    texts.said[1] = UNKNOWN
    texts.complete[1] = UNKNOWN
    head = make_head()
    scores, _ = score(head, replace(heard, log_probabilities=certain), texts)
    losses = head.word_losses(scores, texts)
    assert losses.shape == (3,)
    assert losses[1] == 0
    assert losses[0] > 9000
    losses.sum().backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()
    assert not certain.grad[1].any()
    assert head.slope.grad is not None and head.slope.grad.isfinite().all()


def test_a_head_starts_as_a_logistic_regression_on_its_features() -> None:
    texts = make_texts(*TEXTS * 20)
    heard = make_heard(texts)
    head = make_head()
    _, features = score(head, heard, texts)
    measured = features.detach().double().numpy()
    labels = (heard.log_probabilities.mean(1) > heard.log_probabilities.mean()).numpy().astype(int)
    head.classifier.init_from_pretrained(measured, labels)
    scaled = (measured - measured.mean(0)) / measured.std(0)
    expected = LogisticRegression(C=0.1, max_iter=5000).fit(scaled, labels)
    scores, _ = score(head, heard, texts)
    np.testing.assert_allclose(
        scores.logits.detach(), expected.decision_function(scaled), atol=1e-3
    )


def test_impossible_and_certain_texts_have_finite_scores() -> None:
    texts = make_texts(*TEXTS)
    heard = make_heard(texts)
    nothing = torch.zeros_like(heard.best)
    for log_probabilities in (nothing - 1e5, nothing):
        scored = score(make_head(), replace(heard, log_probabilities=log_probabilities), texts)
        assert all(values.isfinite().all() for values in flat(scored))
