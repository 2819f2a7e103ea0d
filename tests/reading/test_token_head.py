"""The token head: from decoder outputs to scores of words and texts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from hearback.engine.whisper.tokenizer import TokenizedText
from hearback.reading.models.evidence import WordScores, word_losses
from hearback.reading.models.token_head import FEATURES, DecoderOutput, TokenHead
from hearback.reading.window_batches import UNKNOWN, LabelledText, TextBatch, collate_texts

WIDTH = 8
PROMPT, END = (90, 91), 99
TEXTS = ((2, 1, 3), (1,), (4, 1))  # tokens of each word


def make_text(tokens_of_words: Sequence[int], target: float = 1.0) -> LabelledText:
    n_words = len(tokens_of_words)
    words = np.repeat(np.arange(n_words + 1), [*tokens_of_words, 1])
    tokens = np.array([*PROMPT, *range(len(words) - 1), END])
    said = np.full(n_words, target, np.float32)
    return LabelledText(
        TokenizedText(tokens, words), said, np.full(n_words + 1, target, np.float32)
    )


def make_texts(*texts: Sequence[int]) -> TextBatch:
    return collate_texts([[make_text(text)] for text in texts])


def make_output(texts: TextBatch, seed: int = 0) -> DecoderOutput:
    """Random states, and log-probabilities below those of the most likely tokens."""
    generator = torch.Generator().manual_seed(seed)
    best = -torch.rand(texts.word_ids.shape, generator=generator)
    return DecoderOutput(
        hidden=torch.randn(*texts.tokens.shape, WIDTH, generator=generator),
        log_probs=best - 4 * torch.rand(texts.word_ids.shape, generator=generator),
        best_log_probs=best,
    )


def make_head(*, trained: bool = False) -> TokenHead:
    """A head as initialised, or with every weight perturbed."""
    torch.manual_seed(0)
    head = TokenHead(WIDTH, 2, dropout=0.3).eval()
    if trained:
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return head


def score(head: TokenHead, output: DecoderOutput, texts: TextBatch) -> tuple[WordScores, Tensor]:
    n_texts = len(texts.n_words)
    seconds, context = torch.linspace(1, 3, n_texts), torch.rand(n_texts, 2, generator=seeded())
    return head(output, texts, seconds, context)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_word_s_log_probability_is_the_sum_over_its_tokens() -> None:
    texts = make_texts(*TEXTS)
    output = make_output(texts)
    scores, _ = score(make_head(), output, texts)
    token = F.logsigmoid(output.log_probs - output.best_log_probs + 2)
    assert scores.said.shape == (3, 3)
    assert scores.complete.shape == (3, 4)
    for line, tokens_of_words in enumerate(TEXTS):
        starts = np.cumsum([0, *tokens_of_words])
        for word, (start, end) in enumerate(pairwise(starts)):
            torch.testing.assert_close(scores.said[line, word], token[line, start:end].sum())
        # A missing word shows at the first token of the next word, or at the end of text.
        torch.testing.assert_close(scores.complete[line, : len(starts)], token[line, starts])
        assert not scores.said[line, len(tokens_of_words) :].any()
        assert not scores.complete[line, len(starts) :].any()


def pollute(output: DecoderOutput, texts: TextBatch) -> DecoderOutput:
    """Change everything in the padding after the texts."""
    n_targets = texts.word_ids.shape[1]
    padding = torch.arange(n_targets) >= texts.n_targets[:, None]
    hidden = output.hidden.clone()
    hidden[:, texts.n_prompt :][padding] = 50.0
    return DecoderOutput(
        hidden,
        output.log_probs.masked_fill(padding, -1e4),
        output.best_log_probs.masked_fill(padding, 1e3),
    )


def test_padding_does_not_affect_scores() -> None:
    texts = make_texts(*TEXTS)
    output = make_output(texts)
    head = make_head(trained=True)
    for one, other in zip(
        flat(score(head, output, texts)),
        flat(score(head, pollute(output, texts), texts)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def flat(scored: tuple[WordScores, Tensor]) -> list[Tensor]:
    scores, features = scored
    return [scores.logits, scores.said, scores.complete, features]


def test_a_text_s_scores_do_not_depend_on_its_batch_mates() -> None:
    texts = make_texts(*TEXTS)
    output = make_output(texts)
    head = make_head(trained=True)
    seconds, context = torch.tensor([1.0, 2.0, 3.0]), torch.rand(3, 2, generator=seeded())
    together = flat(head(output, texts, seconds, context))
    for line, tokens_of_words in enumerate(TEXTS):
        alone = make_texts(tokens_of_words)
        n_targets = int(alone.n_targets)
        own = DecoderOutput(
            output.hidden[[line], : len(PROMPT) + n_targets],
            output.log_probs[[line], :n_targets],
            output.best_log_probs[[line], :n_targets],
        )
        scored = flat(head(own, alone, seconds[[line]], context[[line]]))
        for all_texts, one in zip(together, scored, strict=True):
            # One logit is -0.06, a sum of terms up to 15, so its rounding error depends on the
            # processor: 1.1e-5 with AMX.
            own_part = all_texts[line].view(-1)[: one.numel()]
            torch.testing.assert_close(own_part, one.view(-1), atol=5e-5, rtol=1.3e-6)


@pytest.mark.parametrize("position", range(6))
def test_an_unlikely_token_lowers_its_own_word_and_no_other(position: int) -> None:
    texts = make_texts(TEXTS[0])
    output = make_output(texts)
    lowered = output.log_probs.clone()
    lowered[0, position] -= 5
    head = make_head()
    before, features = score(head, output, texts)
    after, features_after = score(head, replace(output, log_probs=lowered), texts)
    word = int(texts.word_ids[0, position])
    others = [other for other in range(3) if other != word]
    assert after.said[0, word] < before.said[0, word] - 2
    torch.testing.assert_close(after.said[0, others], before.said[0, others])
    changed = (after.complete != before.complete)[0].nonzero().flatten().tolist()
    assert changed == ([word] if position in (0, 2, 3) else [])
    # All features but those of the end, of the lengths and of the context go down, "misses" up.
    moved = dict(zip(FEATURES, (features_after - features)[0].tolist(), strict=False))
    assert moved["misses"] > 0
    for name in (*FEATURES[:4], "log-odds that every word was said"):
        assert moved[name] < 0, name
    for name in ("end's log-probability", "end's evidence", "log tokens", "log seconds per token"):
        assert moved[name] == 0, name


def test_an_unlikely_end_of_text_lowers_only_the_final_completeness() -> None:
    texts = make_texts(TEXTS[0])
    output = make_output(texts)
    lowered = output.log_probs.clone()
    lowered[0, 6] -= 5
    head = make_head()
    before, features = score(head, output, texts)
    after, features_after = score(head, replace(output, log_probs=lowered), texts)
    torch.testing.assert_close(after.said, before.said)
    torch.testing.assert_close(after.complete[:, :3], before.complete[:, :3])
    assert after.complete[0, 3] < before.complete[0, 3] - 2
    moved = dict(zip(FEATURES, (features_after - features)[0].tolist(), strict=False))
    assert moved["mean log-probability"] == moved["misses"] == 0
    assert moved["end's log-probability"] == pytest.approx(-5, abs=1e-4)


def test_the_correction_is_zero_at_initialisation_and_has_gradients() -> None:
    texts = make_texts(*TEXTS)
    output = make_output(texts)
    other = replace(output, hidden=torch.randn(output.hidden.shape))
    head = make_head()
    for one, another in zip(
        flat(score(head, output, texts)), flat(score(head, other, texts)), strict=True
    ):
        torch.testing.assert_close(one, another, atol=0, rtol=0)
    scores, _ = score(head, output, texts)
    (scores.logits.sum() + word_losses(scores, texts).sum()).backward()
    last = head.correction[-1]
    assert isinstance(last, torch.nn.Linear) and last.weight.grad is not None
    assert (last.weight.grad.abs().amax(1) > 0).all()  # the word's output and the gap's


def test_the_correction_depends_on_the_states_before_and_after_a_token() -> None:
    texts = make_texts((1, 1, 1))
    output = make_output(texts)
    head = make_head(trained=True)
    before, _ = score(head, output, texts)
    # The state at the second word's token: after it, and before the third word's.
    hidden = output.hidden.clone()
    hidden[0, len(PROMPT) + 1] += torch.linspace(-2, 2, WIDTH)
    after, _ = score(head, replace(output, hidden=hidden), texts)
    moved = (after.said != before.said)[0].tolist()
    assert moved == [False, True, True]


def test_context_and_seconds_are_features() -> None:
    texts = make_texts((2, 1))
    output = make_output(texts)
    head = make_head()
    context = torch.tensor([[0.25, 0.75]])
    _, features = head(output, texts, torch.tensor([6.0]), context)
    assert features.shape == (1, len(FEATURES) + 2)
    named = dict(zip(FEATURES, features[0].tolist(), strict=False))
    assert named["log tokens"] == pytest.approx(np.log(3))
    assert named["log seconds per token"] == pytest.approx(np.log(2))
    torch.testing.assert_close(features[:, len(FEATURES) :], context)


def known_of(texts: TextBatch, said: Sequence[float], complete: Sequence[float]) -> TextBatch:
    return replace(texts, said=torch.tensor([said]), complete=torch.tensor([complete]))


def test_word_loss_is_the_log_loss_of_known_targets() -> None:
    texts = make_texts((2, 1))
    head = make_head()
    scores, _ = score(head, make_output(texts), texts)
    said, complete = scores.said.exp()[0].tolist(), scores.complete.exp()[0].tolist()

    def loss(known_said: Sequence[float], known_complete: Sequence[float]) -> float:
        known = known_of(texts, known_said, known_complete)
        return word_losses(scores, known).item()

    nothing, u = [UNKNOWN] * 3, UNKNOWN
    assert loss([u, u], nothing) == 0
    assert loss([1, u], nothing) == pytest.approx(-np.log(said[0]), abs=1e-5)
    assert loss([u, 0], nothing) == pytest.approx(-np.log(1 - said[1]), abs=1e-5)
    assert loss([u, u], [u, 0, u]) == pytest.approx(-np.log(1 - complete[1]), abs=1e-5)
    assert loss([u, u], [u, u, 1]) == pytest.approx(-np.log(complete[2]), abs=1e-5)
    parts = loss([1, u], nothing) + loss([u, 0], nothing) + loss([u, u], [u, 0, u])
    assert loss([1, 0], [u, 0, u]) == pytest.approx(parts, abs=1e-5)


def test_the_word_loss_of_a_probability_is_its_cross_entropy() -> None:
    texts = make_texts((2, 1))
    head = make_head()
    scores, _ = score(head, make_output(texts), texts)
    said, complete = scores.said.exp()[0].tolist(), scores.complete.exp()[0].tolist()
    known = known_of(texts, [0.8, 0.25], [UNKNOWN, 0.5, UNKNOWN])
    pairs = ((0.8, said[0]), (0.25, said[1]), (0.5, complete[1]))
    expected = -sum(p * np.log(q) + (1 - p) * np.log(1 - q) for p, q in pairs)
    assert word_losses(scores, known).item() == pytest.approx(expected, abs=1e-5)


def test_the_word_loss_of_certain_targets_is_to_the_bit_that_of_the_log_probabilities() -> None:
    texts = make_texts(*TEXTS)
    generator = seeded()
    texts = replace(
        texts,
        said=torch.randint(-1, 2, texts.said.shape, generator=generator).float(),
        complete=torch.randint(-1, 2, texts.complete.shape, generator=generator).float(),
    )
    head = make_head(trained=True)
    scores, _ = score(head, make_output(texts), texts)
    expected = torch.zeros_like(scores.logits)
    for log_prob, target in ((scores.said, texts.said), (scores.complete, texts.complete)):
        log_complement = torch.log(-torch.expm1(log_prob.clamp(max=-1e-6)))
        loss = -torch.where(target > 0.5, log_prob, log_complement)
        expected = expected + (loss * (target != UNKNOWN)).sum(1)
    torch.testing.assert_close(word_losses(scores, texts), expected, atol=0, rtol=0)


def test_word_losses_are_per_text_and_have_finite_gradients() -> None:
    texts = make_texts(*TEXTS)
    output = make_output(texts)
    certain = output.log_probs.clone()
    certain[0, 0] = -1e4  # certainly not said
    certain.requires_grad_()
    texts.said[1] = UNKNOWN
    texts.complete[1] = UNKNOWN
    head = make_head()
    scores, _ = score(head, replace(output, log_probs=certain), texts)
    losses = word_losses(scores, texts)
    assert losses.shape == (3,)
    assert losses[1] == 0
    assert losses[0] > 9000
    losses.sum().backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()
    assert not certain.grad[1].any()
    assert head.slope.grad is not None and head.slope.grad.isfinite().all()


def test_the_head_is_initialised_as_a_logistic_regression_on_its_features() -> None:
    texts = make_texts(*TEXTS * 20)
    output = make_output(texts)
    head = make_head()
    _, features = score(head, output, texts)
    inputs = features.detach().double().numpy()
    labels = (output.log_probs.mean(1) > output.log_probs.mean()).numpy().astype(int)
    head.classifier.init_from_pretrained(inputs, labels)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0)
    expected = LogisticRegression(C=0.1, max_iter=5000).fit(scaled, labels)
    scores, _ = score(head, output, texts)
    np.testing.assert_allclose(
        scores.logits.detach(), expected.decision_function(scaled), atol=1e-3
    )


def test_impossible_and_certain_texts_have_finite_scores() -> None:
    texts = make_texts(*TEXTS)
    output = make_output(texts)
    nothing = torch.zeros_like(output.best_log_probs)
    for log_probabilities in (nothing - 1e5, nothing):
        scored = score(make_head(), replace(output, log_probs=log_probabilities), texts)
        assert all(values.isfinite().all() for values in flat(scored))
