"""Tokens are found in a recording by the decoder's cross-attention."""

from dataclasses import replace

import numpy as np
import torch

from hearback.engine.whisper.decoder import DecoderConfig
from hearback.engine.whisper.word_times import align, alignment_heads, token_frames
from tests.engine.test_decoder import make_inputs, random_decoder, their_decoder
from tests.toy import DECODER

TINY_EN = DecoderConfig(384, 4, 6, 1536, 51_864, 448)


def test_known_models_have_their_own_alignment_heads() -> None:
    assert len(alignment_heads(TINY_EN)) == 8
    base = replace(TINY_EN, decoder_layers=6, decoder_attention_heads=8, vocab_size=51_865)
    assert alignment_heads(base)[0] == (3, 1)


def test_a_distilled_decoder_has_not_the_heads_of_a_smaller_model_of_its_depth() -> None:
    distil_small_en = DecoderConfig(768, 4, 12, 3072, 51_864, 448)
    upper_half = tuple((layer, head) for layer in (2, 3) for head in range(12))
    assert alignment_heads(distil_small_en) == upper_half


def test_unknown_sizes_take_all_heads_of_the_upper_half() -> None:
    assert alignment_heads(DECODER) == ((1, 0), (1, 1))


def test_the_weights_of_chosen_heads_equal_those_of_transformers() -> None:
    ours, theirs = random_decoder(), their_decoder(DECODER)
    theirs.load_state_dict(ours.state_dict())
    theirs.config._attn_implementation = "eager"
    tokens, frames = make_inputs()
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens, encoder_hidden_states=frames, output_attentions=True
        ).cross_attentions
        mask = torch.ones(2, frames.shape[1], dtype=torch.bool)
        heads = ((0, 1), (1, 0), (1, 1))
        found = ours.cross_attention(tokens, frames, torch.arange(2), heads, mask)
    theirs_chosen = torch.stack([expected[layer][:, head] for layer, head in heads], dim=1)
    torch.testing.assert_close(found, theirs_chosen, atol=1e-5, rtol=0)


def test_masked_frames_get_no_attention() -> None:
    tokens, frames = make_inputs()
    mask = torch.arange(frames.shape[1]).repeat(2, 1) < torch.tensor([[4], [9]])
    with torch.no_grad():
        found = random_decoder().cross_attention(tokens, frames, torch.arange(2), ((0, 0),), mask)
    assert (found[0, :, :, 4:] == 0).all() and (found[1, :, :, 9:] == 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 1, tokens.shape[1]))


def best_path(scores: np.ndarray) -> np.ndarray:
    """Dynamic time warping cell by cell: the first column of each row."""
    n_rows, n_columns = scores.shape
    total = np.full((n_rows + 1, n_columns + 1), -np.inf)
    total[0, 0] = 0.0
    for row in range(n_rows):
        for column in range(n_columns):
            before = max(total[row, column], total[row, column + 1], total[row + 1, column])
            total[row + 1, column + 1] = scores[row, column] + before
    row, column = n_rows - 1, n_columns - 1
    first = np.zeros(n_rows, np.int64)
    while row >= 0:
        first[row] = column
        steps = {
            (1, 1): total[row, column],
            (1, 0): total[row, column + 1],
            (0, 1): total[row + 1, column],
        }
        down, right = max(steps, key=lambda step: steps[step])
        row, column = row - down, column - right
    return first


def test_the_path_equals_that_of_cell_by_cell_warping() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (7, 3), (6, 40), (12, 12)):
        for _ in range(20):
            scores = rng.normal(size=shape)
            np.testing.assert_array_equal(align(scores), best_path(scores))


def test_tokens_start_where_most_heads_look() -> None:
    attention = torch.full((2, 3, 60), 1e-4)
    for token, start in enumerate((0, 25, 40)):
        attention[:, token, start : start + 12] = 0.08
    assert token_frames(attention).tolist() == [0, 25, 40]


def test_a_recording_shorter_than_the_median_is_aligned() -> None:
    assert token_frames(torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0)))[0] == 0
