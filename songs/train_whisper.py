"""Our own: Whisper tiny's encoder, pretrained on speech, on the waveform."""

from songs.augment import SpectrogramAugmentation
from songs.recipe import SongRecipe
from songs.training import main

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
    epochs=6,
    schedule="cosine",
    mix_up=0.0,  # a mixture of two waveforms is several singers
    augment=SpectrogramAugmentation(time_masks=0.5, gain=0.5),
    class_weights=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
