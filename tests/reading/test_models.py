"""Scorers: logits, losses, gradients and trained parameters of each pairing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hearback.engine.errors import HearbackError
from hearback.engine.whisper.tokenizer import TextTokenizer
from hearback.engine.whisper.weights import read_tensors
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import JoinedScorer, build
from hearback.reading.models.token_head import DecoderOutput, TokenHead
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import Example, HardNegativeText, PairDataset
from hearback.reading.recipe import Recipe
from hearback.reading.window_batches import (
    UNKNOWN,
    WINDOW_SAMPLES,
    Batch,
    LabelledText,
    Pair,
    collate,
    window_samples,
)
from tests.conftest import CONFIG, TINY, TINY_DECODER
from train_model1m import RECIPE as MEAN
from train_model3mapd import RECIPE as ATTENTION
from train_model3mcp import RECIPE as BOTH
from train_modeltok import RECIPE as TOKENS
from train_modeltokown import RECIPE as OWN

JOINED = (MEAN, ATTENTION, BOTH)
TOKEN_SCORERS = (TOKENS, OWN)
TEXTS = ("the dog ran home", "koovnorb", "a red hat", "boy")
NEGATIVES = ("a fog ran home", "a dog home")


def make_model(recipe: Recipe, tokenizer: Path) -> Scorer:
    """A model with every weight perturbed: zero-initialised layers would hide mistakes."""
    torch.manual_seed(0)
    model = build(recipe, CONFIG, tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "negative_bias":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def make_pair(n_samples: int, row: int = 0) -> Pair:
    waveform = np.random.default_rng(row).normal(0, 0.1, n_samples).astype(np.float32)
    return Pair(waveform, np.array([0.25, 0.5], dtype=np.float32), row, label=float(row % 2))


def with_texts(pair: Pair, text_tokenizer: TextTokenizer, *texts: tuple[str, float]) -> Pair:
    """Add texts to a pair; each text has one target for all of its words."""
    tokenized_texts = [(text_tokenizer.encode(text), target) for text, target in texts]
    return replace(
        pair,
        texts=tuple(
            LabelledText(
                tokenized,
                np.full(tokenized.n_words, target, np.float32),
                np.full(tokenized.n_words + 1, target, np.float32),
            )
            for tokenized, target in tokenized_texts
        ),
    )


def make_pairs(tokenizer: Path) -> list[Pair]:
    """Four clips of one window length with a text each; two also with hard negatives."""
    text_tokenizer = TextTokenizer(tokenizer)
    lengths = (9000, 10_240, 7000, 10_000)
    texts: list[list[tuple[str, float]]] = [[(text, UNKNOWN)] for text in TEXTS]
    texts[1].append(("koovnorp", 0.0))
    texts[3] += [("toy", 0.0), ("bay", 0.0)]
    return [
        with_texts(make_pair(n_samples, row), text_tokenizer, *texts[row])
        for row, n_samples in enumerate(lengths)
    ]


def make_batch(pairs: Sequence[Pair]) -> Batch:
    return collate(pairs, window_samples(pairs[0].n_samples, "trimmed", 0.64))


def own_texts_only(pairs: Sequence[Pair]) -> list[Pair]:
    return [replace(pair, texts=pair.texts[:1]) for pair in pairs]


@pytest.mark.parametrize("recipe", JOINED + TOKEN_SCORERS, ids=lambda recipe: recipe.name)
def test_a_clips_score_does_not_depend_on_its_batch_mates(recipe: Recipe, tokenizer: Path) -> None:
    model, pairs = make_model(recipe, tokenizer), make_pairs(tokenizer)
    with torch.no_grad():
        together = model(make_batch(pairs))
        alone = torch.cat([model(make_batch([pair])) for pair in own_texts_only(pairs)])
    assert together.shape == (4,)
    assert together.std() > 1e-3
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recipe", [BOTH, *TOKEN_SCORERS], ids=lambda recipe: recipe.name)
def test_logits_are_float32_under_autocast(recipe: Recipe, tokenizer: Path) -> None:
    model = make_model(recipe, tokenizer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = make_batch(make_pairs(tokenizer))
        assert model(batch).dtype == torch.float32
        logits, loss = model.training_step(batch)
    assert logits.dtype == loss.dtype == torch.float32


@pytest.mark.parametrize("recipe", [ATTENTION, TOKENS], ids=lambda recipe: recipe.name)
def test_the_score_depends_on_task_and_grade(recipe: Recipe, tokenizer: Path) -> None:
    model, pair = make_model(recipe, tokenizer), make_pairs(tokenizer)[0]
    other = replace(pair, context=np.array([0.75, 0.0], dtype=np.float32))
    with torch.no_grad():
        assert model(make_batch([pair])) != model(make_batch([other]))


@pytest.mark.parametrize("recipe", TOKEN_SCORERS, ids=lambda recipe: recipe.name)
def test_a_token_scorer_depends_on_recording_and_text(recipe: Recipe, tokenizer: Path) -> None:
    model, pairs = make_model(recipe, tokenizer), make_pairs(tokenizer)
    other_text = replace(pairs[0], texts=pairs[2].texts)
    other_sound = replace(pairs[0], waveform=pairs[1].waveform)
    with torch.no_grad():
        score, *changed = (model(make_batch([p])) for p in (pairs[0], other_text, other_sound))
    for other in changed:
        assert (score - other).abs() > 1e-4


@pytest.mark.parametrize("recipe", [ATTENTION, TOKENS], ids=lambda recipe: recipe.name)
def test_dropout_acts_in_training_only(recipe: Recipe, tokenizer: Path) -> None:
    model = make_model(replace(recipe, dropout=0.4), tokenizer)
    batch = make_batch(make_pairs(tokenizer)[:1])
    assert model.train()(batch) != model(batch)
    assert model.eval()(batch) == model(batch)


@pytest.mark.parametrize("recipe", [MEAN, *TOKEN_SCORERS], ids=lambda recipe: recipe.name)
def test_the_negative_bias_is_not_part_of_a_score(recipe: Recipe, tokenizer: Path) -> None:
    model = make_model(recipe, tokenizer)
    pairs = [replace(pair, is_negative=pair.row == 2) for pair in make_pairs(tokenizer)]
    with torch.no_grad():
        before = model(make_batch(pairs))
        model.negative_bias.fill_(-3.0)
        after = model(make_batch(pairs))
    torch.testing.assert_close(after, before, atol=0, rtol=0)


@pytest.mark.parametrize("recipe", [MEAN, *TOKEN_SCORERS], ids=lambda recipe: recipe.name)
def test_the_negative_bias_is_added_to_negatives_in_training(
    recipe: Recipe, tokenizer: Path
) -> None:
    model = make_model(recipe, tokenizer)
    pairs = own_texts_only(make_pairs(tokenizer))
    batch = make_batch([replace(pair, is_negative=pair.row == 2) for pair in pairs])
    with torch.no_grad():
        model.negative_bias.fill_(-3.0)
        logits, _ = model.training_step(batch)
        torch.testing.assert_close(logits - model(batch), torch.tensor([0.0, 0, -3, 0]))


def test_token_scorers_need_a_tokenizer_and_joined_scorers_do_not() -> None:
    assert isinstance(build(MEAN, CONFIG), JoinedScorer)
    with pytest.raises(HearbackError, match=r"modeltok scores tokens: .*tokenizer"):
        build(TOKENS, CONFIG)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"nowhere\.json: file not found"):
        build(TOKENS, CONFIG, tmp_path / "nowhere.json")


@pytest.mark.parametrize("recipe", [MEAN, OWN], ids=lambda recipe: recipe.name)
def test_models_without_pretrained_features_return_none(recipe: Recipe, tokenizer: Path) -> None:
    model = make_model(recipe, tokenizer)
    assert model.pretrained_features(make_batch(make_pairs(tokenizer))) is None


# The token scorer


def token_scorer(recipe: Recipe, tokenizer: Path) -> TokenScorer:
    model = make_model(recipe, tokenizer)
    assert isinstance(model, TokenScorer)
    return model


def one_by_one(model: TokenScorer, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Return each text's states, (tokens, width), and tokens, (tokens,), without batching."""
    assert batch.texts is not None
    frames, texts = model.encode(batch), batch.texts
    results = []
    for line, clip in enumerate(texts.clips.tolist()):
        n_tokens = texts.n_prompt + int(texts.n_targets[line])
        tokens = texts.tokens[line, :n_tokens]
        results.append((model.decoder(tokens[None], frames[[clip]], torch.tensor([0]))[0], tokens))
    return results


def test_own_is_the_mean_logit_of_each_token_at_its_own_position(
    tokenizer: Path,
) -> None:
    model, batch = token_scorer(OWN, tokenizer), make_batch(make_pairs(tokenizer))
    with torch.no_grad():
        expected = []
        for hidden, tokens in one_by_one(model, batch):
            logits = F.linear(hidden, model.decoder.embed_tokens.weight)
            positions = range(2, len(tokens) - 1)  # neither the prompt nor the end of text
            expected.append(torch.stack([logits[at, tokens[at]] for at in positions]).mean())
        torch.testing.assert_close(model(batch), torch.stack(expected[:4]), atol=1e-4, rtol=0)


def test_the_head_receives_the_log_probabilities_of_a_full_softmax(
    tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = token_scorer(TOKENS, tokenizer), make_batch(make_pairs(tokenizer))
    arguments: dict[str, Any] = {}
    forward = TokenHead.forward

    def spy(self: TokenHead, output: DecoderOutput, *rest: Any) -> Any:
        arguments.update(output=output, rest=rest)
        return forward(self, output, *rest)

    monkeypatch.setattr(TokenHead, "forward", spy)
    with torch.no_grad():
        scores, _ = model.score_texts(batch)
        states = one_by_one(model, batch)
    assert scores.logits.shape == (7,)
    output: DecoderOutput = arguments["output"]
    for line, (hidden, tokens) in enumerate(states):
        logits = F.linear(hidden, model.decoder.embed_tokens.weight)
        probabilities = logits.log_softmax(-1)[1:-1]
        n_targets = len(tokens) - 2
        expected = probabilities.gather(1, tokens[2:, None]).squeeze(1)
        close = torch.testing.assert_close
        close(output.log_probs[line, :n_targets], expected, atol=1e-4, rtol=0)
        close(output.best_log_probs[line, :n_targets], probabilities.amax(-1), atol=1e-4, rtol=0)
    _, seconds, context = arguments["rest"]
    clips = [0, 1, 2, 3, 1, 3, 3]
    lengths = np.array([9000, 10_240, 7000, 10_000])[clips] / 16_000
    np.testing.assert_allclose(seconds, lengths, atol=0.02)
    assert (seconds.numpy() > lengths - 1e-6).all()
    torch.testing.assert_close(context, batch.context[clips])


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("recipe", TOKEN_SCORERS, ids=lambda recipe: recipe.name)
def test_hard_negatives_have_the_recipe_s_weight(
    recipe: Recipe, weight: float, tokenizer: Path
) -> None:
    recipe = replace(recipe, hard_negative_weight=weight, word_loss=0.0)
    model = token_scorer(recipe, tokenizer)
    pairs = make_pairs(tokenizer)
    negatives = [
        replace(pairs[row], texts=(text,)) for row in (1, 3) for text in pairs[row].texts[1:]
    ]
    with torch.no_grad():
        model.negative_bias.fill_(-0.7)
        logits, loss = model.training_step(make_batch(pairs))
        scores = torch.cat([model(make_batch([pair])) for pair in negatives]) - 0.7
        torch.testing.assert_close(logits, model(make_batch(pairs)), atol=0, rtol=0)
    expected = F.binary_cross_entropy_with_logits(scores, torch.zeros(3), reduction="sum")
    torch.testing.assert_close(loss, weight * expected, atol=1e-5, rtol=0)


def test_word_losses_have_the_recipe_s_weight(tokenizer: Path) -> None:
    text_tokenizer = TextTokenizer(tokenizer)
    known = with_texts(make_pair(9000), text_tokenizer, ("a red hat", 1.0))
    unknown = with_texts(make_pair(9000), text_tokenizer, ("a red hat", UNKNOWN))
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        model = token_scorer(replace(TOKENS, word_loss=weight), tokenizer)
        with torch.no_grad():
            losses[weight] = model.training_step(make_batch([known]))[1].item()
            assert model.training_step(make_batch([unknown]))[1] == 0
            scores = model.score_texts(make_batch([known]))[0]
    assert losses[0.0] == 0
    expected = -(scores.said.sum() + scores.complete.sum()).item()
    assert losses[1.0] == pytest.approx(expected, rel=1e-5)
    assert losses[0.5] == pytest.approx(expected / 2, rel=1e-5)


def test_the_words_of_hard_negatives_have_losses(tokenizer: Path) -> None:
    """The loss of the wrong word is that of target 0."""
    model = token_scorer(replace(TOKENS, hard_negative_weight=0.0, word_loss=1.0), tokenizer)
    pair, text_tokenizer = make_pair(9000), TextTokenizer(tokenizer)
    own = with_texts(pair, text_tokenizer, ("a red hat", UNKNOWN))
    text = LabelledText(
        text_tokenizer.encode("a bed hat"), np.array([1, 0, 1], np.float32), np.full(4, UNKNOWN)
    )
    text = replace(text, complete=text.complete.astype(np.float32))
    with torch.no_grad():
        batch = make_batch([replace(own, texts=(*own.texts, text))])
        loss = model.training_step(batch)[1].item()
        p = model.score_texts(batch)[0].said[1].exp()
    assert loss == pytest.approx(-(p[0].log() + (1 - p[1]).log() + p[2].log()).item(), rel=1e-4)


def test_a_token_scorer_is_initialised_from_pretrained_features(tokenizer: Path) -> None:
    torch.manual_seed(0)
    model = build(TOKENS, CONFIG, tokenizer).eval()
    pairs = [replace(make_pairs(tokenizer)[row % 4], row=row) for row in range(12)]
    pairs = [replace(p, waveform=np.roll(p.waveform, p.row) * (1 + p.row)) for p in pairs]
    batch = make_batch(pairs)
    with torch.no_grad():
        features = model.pretrained_features(batch)
        assert features is not None
        labels = (features[:, 0] > features[:, 0].median()).numpy().astype(int)
        model.init_from_pretrained(features[:12].double().numpy(), labels[:12])
        logits = model(batch)
    assert logits[labels[:12] == 1].mean() > logits[labels[:12] == 0].mean() + 0.5


@pytest.mark.parametrize("recipe", [MEAN, *TOKEN_SCORERS], ids=lambda recipe: recipe.name)
def test_backbone_parameters_are_loaded_and_exclude_frozen_layers(
    recipe: Recipe, backbone: Path
) -> None:
    model = build(replace(recipe, frozen_share=0.5), CONFIG, backbone / "tokenizer.json")
    tensors = {part: read_tensors(backbone, part) for part in model.parts}
    model.load_pretrained(tensors)
    name = "layers.1.self_attn.q_proj.weight"
    for part in model.parts:
        torch.testing.assert_close(
            model.get_submodule(part).state_dict()[name], tensors[part][name], atol=0, rtol=0
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = {names[id(parameter)] for parameter in model.backbone_parameters()}
    assert f"encoder.{name}" in trained
    assert not any(n.startswith(("encoder.conv", "encoder.layers.0.")) for n in trained)
    assert "encoder.embed_positions.weight" not in trained
    decoder = {n for n in trained if n.startswith("decoder.")}
    if "decoder" not in model.parts:
        assert not decoder
    else:
        layers = {n for n in names.values() if n.startswith("decoder.layer")}
        assert decoder == layers  # all but the embeddings
    assert not any(n.startswith(("head.", "negative_bias")) for n in trained)


@pytest.mark.parametrize("recipe", TOKEN_SCORERS, ids=lambda recipe: recipe.name)
def test_all_trainable_parameters_have_gradients(recipe: Recipe, backbone: Path) -> None:
    tokenizer = backbone / "tokenizer.json"
    model = make_model(replace(recipe, word_loss=0.5, hard_negatives=1.0), tokenizer)
    assert isinstance(model, TokenScorer)
    text_tokenizer = TextTokenizer(tokenizer)
    pairs = [
        with_texts(make_pair(9000, row), text_tokenizer, (text, 1.0), (negative, 0.0))
        for row, (text, negative) in enumerate(
            zip(("a dog ran home", "a dog"), NEGATIVES, strict=True)
        )
    ]
    logits, loss = model.training_step(make_batch(pairs))
    (logits.sum() + loss).backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    }
    assert without == set()


@pytest.mark.parametrize("recipe", [MEAN, *TOKEN_SCORERS], ids=lambda recipe: recipe.name)
def test_a_model_is_built_again_from_its_shape(recipe: Recipe, tokenizer: Path) -> None:
    model = make_model(recipe, tokenizer)
    again = build(recipe, model.backbone_config(), tokenizer)
    again.load_state_dict(model.state_dict())
    sizes = TINY.as_dict() | (TINY_DECODER.as_dict() if recipe.pair == "tokens" else {})
    assert model.backbone_config() == sizes


def test_a_hard_negative_s_targets_reach_the_model(tokenizer: Path) -> None:
    said, complete = np.array([1, 0], np.float32), np.array([1, 1, 0], np.float32)
    source: Any = type(
        "Source", (), {"encoded": None, "longest_window": lambda *_: WINDOW_SAMPLES}
    )()
    source.learner = lambda row: make_pair(9000, row).waveform
    source.contexts = [np.zeros(2, np.float32)]
    examples = [
        Example(0, "a dog", 1.0, hard_negatives=(HardNegativeText("a fog", said, complete),))
    ]
    dataset = PairDataset(source, examples, "tokens", text_tokenizer=TextTokenizer(tokenizer))
    batch = make_batch([dataset[0]])
    assert batch.texts is not None
    assert batch.texts.said.tolist() == [[1, 1], [1, 0]]
    assert batch.texts.complete.tolist() == [[1, 1, 1], [1, 1, 0]]
