"""Our own system: Whisper tiny's encoder, pretrained on speech, on the waveform.

Half of the snippets are mixtures of two recordings of their class, instead of mix-up; half of the
recordings are played faster or slower, to vary the voices; three quarters of the snippets are cut
into pieces and shuffled, so that the encoder of a speech recognizer does not learn the lyrics of
the training songs. Classes are sampled equally often, which gives many mixtures of several voices.
docs/results/songs.md has the effect of each.
"""

from hearback.songs.augment import SpectrogramAugmentation
from hearback.songs.recipe import SongRecipe
from hearback.songs.training import main

RECIPE = SongRecipe(
    name="whisper",
    architecture="whisper",
    features="waveform",
    backbone="openai/whisper-tiny.en",
    dropout=0.1,
    optimizer="adamw",
    learning_rate=1e-4,
    head_learning_rate=1e-3,
    weight_decay=1e-2,
    batch_size=16,
    epochs=10,
    schedule="cosine",
    mixtures=0.5,
    speed=0.5,
    shuffled=0.75,
    augment=SpectrogramAugmentation(time_masks=0.5, gain=0.5),
    balanced_sampling=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
