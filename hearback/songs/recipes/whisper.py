"""Our own: Whisper tiny's encoder, pretrained on speech, on the waveform.

Half of the snippets are true mixtures of their class, in the place of mix-up, half of the sounds
are played faster or slower, as others would sing, and three quarters of what came of it are cut in
pieces that are played in another order: a speech recogniser's encoder would otherwise learn the
words that the training sings. The classes are drawn equally often, so that there are many mixtures
of several voices. docs/songs.md says what each of these gives.
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
    balanced_draws=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
