"""Log-likelihoods of a text's words given a segment, from a token scorer's decoder."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.whisper.token_logprobs import token_log_probs
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.passages.jumps import Likelihoods, Runs
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES, pad_waveforms, window_samples

BATCH_TEXTS = 40  # each has a copy of the segment's keys and values


class SegmentLikelihood:
    """The `jumps.LikelihoodFn` of a text and the segments of its recording.

    Args:
        model: a token scorer in evaluation mode.
        words: the text's words.
        waveform_of: returns a segment's waveform, (samples,) float32 at 16 kHz, at the speed of the
            model's recipe.
        device: where the model is.
    """

    def __init__(
        self,
        model: TokenScorer,
        words: Sequence[str],
        waveform_of: Callable[[int], np.ndarray],
        device: torch.device,
    ) -> None:
        assert model.text_tokenizer is not None
        self.model, self.words, self.device = model, words, device
        self.waveform_of = waveform_of
        self.tokenizer = model.text_tokenizer
        self._encoded: tuple[int, Tensor] | None = None  # the last segment and its frames

    @torch.inference_mode()
    def __call__(
        self, segment: int, starts: Sequence[int], n_words: int, said: Runs = ()
    ) -> Likelihoods:
        """Return the likelihoods of words after those `said`; see `LikelihoodFn`.

        -inf also for texts of more tokens than the decoder has positions.
        """
        most = self.model.decoder.config.max_target_positions
        before = [word for run in said for word in self.words[run.start : run.stop]]
        tokenized = [
            self.tokenizer.encode(" ".join([*before, *self.words[start : start + n_words]]))
            for start in starts
        ]
        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(text.tokens[:most]) for text in tokenized],
            batch_first=True,
            padding_value=self.tokenizer.end,
        )
        # All texts begin with the same tokens.
        n_before = int(np.searchsorted(tokenized[0].word_ids, len(before)))
        parts = [
            self._log_probs(segment, batch, n_before)
            for batch in tokens.to(self.device).split(BATCH_TEXTS)
        ]
        log_probs, ends = (np.concatenate(each) for each in zip(*parts, strict=True))
        begins, whole = np.full((2, len(starts), 1 + n_words), -np.inf)
        for row, text in enumerate(tokenized):
            # The number of tokens before the end, for 0 words, 1 word, ….
            n_tokens = np.searchsorted(text.word_ids, np.arange(len(before), text.n_words + 1))
            n_tokens = n_tokens[n_tokens < n_before + log_probs.shape[1]] - n_before
            so_far = np.concatenate([[0.0], log_probs[row].cumsum()])
            begins[row, : len(n_tokens)] = so_far[n_tokens]
            whole[row, : len(n_tokens)] = so_far[n_tokens] + ends[row, n_tokens]
        return Likelihoods(begins, whole)

    def _log_probs(
        self, segment: int, tokens: Tensor, n_before: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities of the targets and of the end, (texts, targets) each.

        Without the first `n_before` targets.
        """
        first = len(self.tokenizer.prompt) + n_before
        decoder = self.model.decoder
        clips = torch.zeros(len(tokens), dtype=torch.int64, device=self.device)
        hidden = decoder(tokens, self._encode(segment), clips)[:, first - 1 : -1]
        targets, embedding = tokens[:, first:], decoder.embed_tokens.weight
        log_probs, _ = token_log_probs(hidden.flatten(0, 1), embedding, targets.flatten())
        log_probs = log_probs.view(targets.shape)
        # The end has the same normaliser as the target at its position.
        hidden = hidden.float()
        logit = (hidden * embedding[targets].float()).sum(-1)
        ends = hidden @ embedding[self.tokenizer.end].float() - (logit - log_probs)
        return log_probs.double().cpu().numpy(), ends.double().cpu().numpy()

    def _encode(self, segment: int) -> Tensor:
        """Return a segment's frames, (1, frames, width)."""
        if self._encoded is None or self._encoded[0] != segment:
            waveform, recipe = self.waveform_of(segment), self.model.recipe
            n_samples = window_samples(
                len(waveform), recipe.window, recipe.window_step_seconds, LONGEST_WINDOW_SAMPLES
            )
            padded = pad_waveforms([waveform[:n_samples]], n_samples).to(self.device)
            spectrogram = log_mel(padded, self.model.encoder.config.num_mel_bins)
            self._encoded = segment, self.model.encoder(spectrogram)
        return self._encoded[1]
