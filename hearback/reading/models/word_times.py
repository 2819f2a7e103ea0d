"""Start and end of each word of a text in its recording, from a token scorer's decoder."""

from collections.abc import Sequence

import numpy as np
import torch

from hearback.engine.audio.decode import SAMPLE_RATE
from hearback.engine.devices import to_host
from hearback.engine.whisper.encoder import FRAMES_PER_SECOND
from hearback.engine.whisper.word_times import alignment_heads, token_frames
from hearback.reading.models.base import frame_mask
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairs import Example, PairDataset, PairSource
from hearback.reading.window_batches import Batch, batch_by_window
from hearback.reading.window_coverage import FRAME_SAMPLES, find_speech

SHORTEST_PAUSE = 0.12  # seconds
SNAP_SECONDS = 0.3  # a boundary this close to a pause is in it


@torch.inference_mode()
def word_times(model: TokenScorer, batch: Batch) -> list[np.ndarray]:
    """Return start and end of each word of the clips' expected texts, (words, 2) seconds each.

    Times count from the start of the clip as the batch has it. For a clip at another speed,
    multiply them by it (`PairSource.speed_of`) to get times in the original. Starts and ends do not
    decrease; pauses before and after a word are not part of it. A word that was not said has a
    time, too, where it would have been.
    """
    assert batch.texts is not None
    texts, n_clips = batch.texts, len(batch)
    frames = model.encode(batch)
    mask = frame_mask(frames, batch.n_frames)
    heads = alignment_heads(model.decoder.config)
    tokens, clips = texts.tokens[:n_clips], texts.clips[:n_clips]
    attention = model.decoder.cross_attention(tokens, frames, clips, heads, mask)
    attention, all_word_ids, waveforms, n_targets_of, n_frames_of = to_host(
        *(attention, texts.word_ids, batch.waveforms, texts.n_targets, batch.n_frames)
    )
    times = []
    for clip in range(n_clips):
        n_targets, n_frames = int(n_targets_of[clip]), int(n_frames_of[clip])
        # The row of a token is that of the position before it, which predicts it.
        first = texts.n_prompt - 1
        rows = attention[clip, :, first : first + n_targets, :n_frames]
        starts = token_frames(rows) / FRAMES_PER_SECOND
        word_ids = all_word_ids[clip, :n_targets].numpy()
        # The start of each word's first token, and of the end of text.
        boundaries = starts[np.searchsorted(word_ids, np.arange(word_ids[-1] + 1))]
        n_samples = min(batch.waveforms.shape[1], n_frames * round(SAMPLE_RATE / FRAMES_PER_SECOND))
        times.append(trim(boundaries, waveforms[clip, :n_samples].numpy()))
    return times


def trim(boundaries: np.ndarray, waveform: np.ndarray) -> np.ndarray:
    """Return start and end of each word, (words, 2) seconds, without the pauses around it.

    A pause belongs between the two words whose boundary is nearest, if that is near enough.

    Args:
        boundaries: (words + 1,), the starts of the words and the end of the last, in seconds.
        waveform: (samples,) float32 at 16 kHz.
    """
    times = np.stack([boundaries[:-1], boundaries[1:]], axis=1)
    longest = np.zeros(len(boundaries))
    for start, end in find_pauses(waveform):
        distances = np.maximum(np.maximum(start - boundaries, boundaries - end), 0)
        nearest = int(distances.argmin())
        if start == 0:
            nearest = 0
        elif end >= len(waveform) / SAMPLE_RATE:
            nearest = len(boundaries) - 1
        elif distances[nearest] > SNAP_SECONDS or nearest in (0, len(boundaries) - 1):
            continue
        if end - start > longest[nearest]:
            longest[nearest] = end - start
            if nearest > 0:
                times[nearest - 1, 1] = start
            if nearest < len(times):
                times[nearest, 0] = end
    # Two pauses close to each other can leave nothing of the word between them.
    starts = np.maximum.accumulate(times[:, 0])
    return np.stack([starts, np.maximum(np.maximum.accumulate(times[:, 1]), starts)], axis=1)


def find_pauses(waveform: np.ndarray) -> list[tuple[float, float]]:
    """Return start and end, in seconds, of each pause in (samples,) at 16 kHz, in order.

    Silence before and after the speech counts, however short. No pause stands out in steady noise.
    """
    speech, _ = find_speech(waveform)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], speech, [True]]).astype(np.int8)))
    seconds = edges.reshape(-1, 2) * (FRAME_SAMPLES / SAMPLE_RATE)
    duration = len(waveform) / SAMPLE_RATE
    pauses = []
    for start, end in seconds.tolist():
        is_last = end > duration - FRAME_SAMPLES / SAMPLE_RATE  # before a frame that is not whole
        if start == 0 or is_last or end - start >= SHORTEST_PAUSE:
            pauses.append((start, duration if is_last else end))
    return pauses


def time_words(
    model: TokenScorer, source: PairSource, rows: Sequence[int], device: torch.device
) -> dict[int, np.ndarray]:
    """Return start and end of each word of some rows' texts, (words, 2) seconds, by row.

    The times are those of the original recordings. The model is moved to the device and set to
    evaluation mode.
    """
    model.to(device).eval()
    source = source.with_speeds(model.recipe.speed_by_grade)
    examples = [Example(row, source.texts[row]) for row in rows]
    pairs = PairDataset(source, examples, "tokens", text_tokenizer=model.text_tokenizer)
    recipe = model.recipe
    loaded = (pairs[index] for index in range(len(pairs)))
    window = (recipe.window, recipe.window_step_seconds)
    batches = batch_by_window(loaded, recipe.batch_size, *window, longest=source.longest)
    times: dict[int, np.ndarray] = {}
    for batch in batches:
        found = word_times(model, batch.to(device))
        for row, seconds in zip(batch.rows.tolist(), found, strict=True):
            times[row] = seconds * source.speed_of(row)
    return times
