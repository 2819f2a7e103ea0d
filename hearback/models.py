"""From a recipe to a module."""

import torch
from torch import Tensor, nn

from hearback.encoder import EncoderShape, WhisperEncoder
from hearback.features import log_mel
from hearback.heads import Head
from hearback.pairs import Batch
from hearback.recipe import Recipe

N_CONTEXT = 2  # task, grade


class Scorer(nn.Module):
    """Waveforms of joined pairs to logits: log-mel, the cut encoder, a head."""

    def __init__(self, recipe: Recipe, shape: EncoderShape) -> None:
        super().__init__()
        self.encoder = WhisperEncoder(shape)
        self.head = Head(
            width=shape.d_model,
            n_context=N_CONTEXT,
            pooling=recipe.pooling,
            hidden=shape.d_model if recipe.hidden == "width" else recipe.hidden,
            dropout=recipe.dropout,
            dropout_on=recipe.dropout_on,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return (batch,) float32 logits that the learner said the text.

        Logits rather than probabilities: a sigmoid in half precision rounds a confident mistake to
        0 or 1, whose logarithm is infinite.
        """
        frames = self.encoder(log_mel(batch.waveforms, self.encoder.shape.num_mel_bins))
        places = torch.arange(frames.shape[1], device=frames.device)
        heard = places < batch.n_frames[:, None]
        return self.head(frames, heard, batch.context).float()
