"""System 2's ResNet34: its first convolution 3×3 with stride 1, on 128 mel bands in dB.

Published are the stem, the learning rate, "ReduceLROnPlateau", epochs, batch size, mix-up and which
augmentations. Chosen here: SGD with momentum and decay as He et al. (2015, section 3.4), whose rate
of 0.1 for batches of 256 is about 0.006 for 16; no dropout, as theirs has none; how often there is
a mask or a reversal; and that the rate falls after more than 2 epochs without a gain: with torch's
usual 10 it never did in 24 epochs, and the last epoch was a matter of luck (docs/songs.md).

Rarer classes are drawn more often *and* count more in the loss, as published: twice the correction,
so its probabilities lean to the rare classes.
"""

from hearback.songs.augment import SpectrogramAugmentation
from hearback.songs.recipe import SongRecipe
from hearback.songs.training import main

RECIPE = SongRecipe(
    name="resnet34_small_stem",
    architecture="resnet34",
    features="mel_db_128",
    stem="3x3 stride 1",
    dropout=0.0,
    optimizer="sgd",
    learning_rate=5e-3,
    weight_decay=1e-4,
    batch_size=16,
    epochs=24,
    schedule="plateau",
    patience_epochs=2,
    mix_up=0.4,
    augment=SpectrogramAugmentation(reverse=0.5, time_masks=0.5, frequency_masks=0.5),
    class_weights=True,
    balanced_draws=True,
    keep="last",
    max_gradient_norm=100.0,  # 25 is usual at first: at 5, SGD would learn at a fifth of its rate
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
