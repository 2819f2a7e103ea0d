"""Log-likelihoods of a text's words given a segment, from a token scorer's decoder."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hearback.engine.audio.log_mel import log_mel
from hearback.engine.whisper.token_logprobs import token_log_probs
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.window_batches import LONGEST_WINDOW_SAMPLES, pad_waveforms, window_samples


class SegmentLikelihood:
    """The `text_split.LikelihoodFn` of a text and the segments of its recording.

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
    def __call__(self, segment: int, starts: Sequence[int], n_words: int) -> np.ndarray:
        """Return the log-likelihoods, (starts, 1 + n_words) float64; see `LikelihoodFn`.

        -inf also for texts of more tokens than the decoder has positions.
        """
        most = self.model.decoder.config.max_target_positions
        tokenized = [
            self.tokenizer.encode(" ".join(self.words[start : start + n_words])) for start in starts
        ]
        tokens = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(text.tokens[:most]) for text in tokenized],
            batch_first=True,
            padding_value=self.tokenizer.end,
        )
        log_probs, ends = self._log_probs(segment, tokens.to(self.device))
        values = np.full((len(starts), 1 + n_words), -np.inf)
        for row, text in enumerate(tokenized):
            # The number of tokens before the end, for 0 words, 1 word, ….
            n_tokens = np.searchsorted(text.word_ids, np.arange(text.n_words + 1))
            n_tokens = n_tokens[n_tokens < log_probs.shape[1]]
            so_far = np.concatenate([[0.0], log_probs[row].cumsum()])
            values[row, : len(n_tokens)] = so_far[n_tokens] + ends[row, n_tokens]
        return values

    def _log_probs(self, segment: int, tokens: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities of the targets and of the end, (texts, targets) each."""
        n_prompt = len(self.tokenizer.prompt)
        decoder = self.model.decoder
        clips = torch.zeros(len(tokens), dtype=torch.int64, device=self.device)
        hidden = decoder(tokens, self._encode(segment), clips)[:, n_prompt - 1 : -1]
        targets, embedding = tokens[:, n_prompt:], decoder.embed_tokens.weight
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
