"""System 2's CNN: four convolution layers from scratch on 128 mel bands in dB.

Published are the number of layers, the learning rate, "MultiStepLR", epochs, batch size, mix-up and
which augmentations. Chosen here: the layers (`hearback.songs.models.classifiers.Cnn4`), Adam, whose usual rate it is,
the milestones, dropout, and how often there is a mask or a reversal.

Rarer classes are drawn more often *and* count more in the loss, as published: twice the correction,
so its probabilities lean to the rare classes.
"""

from hearback.songs.augment import SpectrogramAugmentation
from hearback.songs.recipe import SongRecipe
from hearback.songs.training import main

RECIPE = SongRecipe(
    name="cnn4",
    architecture="cnn4",
    features="mel_db_128",
    dropout=0.2,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=0.0,
    batch_size=16,
    epochs=30,
    schedule="multistep",
    milestones=(15, 25),
    mix_up=0.4,
    augment=SpectrogramAugmentation(reverse=0.5, time_masks=0.5, frequency_masks=0.5),
    class_weights=True,
    balanced_draws=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
