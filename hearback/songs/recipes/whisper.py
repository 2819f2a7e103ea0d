"""Our own system: the encoder of Whisper tiny.en, pretrained on speech, on the waveform.

Half of the snippets are replaced by true mixtures of their class. Half of the recordings are played
faster or slower, to vary the voices. Three quarters of the snippets are cut into pieces and
shuffled, so that the encoder does not learn the words of the training songs. Classes are sampled
equally often, which gives many mixtures of several voices. docs/results/songs.md shows the effect
of each.
"""

from hearback.songs.augment import Augmentation
from hearback.songs.recipe import SongRecipe
from hearback.songs.steps.train_model import main

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
    augment=Augmentation(time_masks=0.5, gain=0.5),
    balanced_sampling=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
