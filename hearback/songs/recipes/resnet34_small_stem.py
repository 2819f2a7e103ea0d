"""System 2's ResNet-34, with a first convolution of 3×3 and stride 1, on 128 mel bands in dB.

Published: the stem, the learning rate, "ReduceLROnPlateau", epochs, batch size, mix-up and the
kinds of augmentation. Chosen here: SGD with momentum and weight decay as in He et al. (2015,
section 3.4), where a rate of 0.1 for batches of 256 corresponds to about 0.006 for 16; no dropout,
as there; the probabilities of masks and reversal; and a patience of 2 epochs. With torch's default
of 10 the rate never fell in 24 epochs, and the last epoch's score depended on chance
(docs/results/songs.md).

As published, rare classes are both sampled more often and weighted more in the loss. This corrects
for their rarity twice, so their probabilities are too high.
"""

from hearback.songs.augment import Augmentation
from hearback.songs.recipe import SongRecipe
from hearback.songs.steps.train_model import main

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
    augment=Augmentation(reverse=0.5, time_masks=0.5, frequency_masks=0.5),
    class_weights=True,
    balanced_sampling=True,
    keep="last",
    max_gradient_norm=100.0,  # early norms are about 25: clipping at 5 would slow SGD fivefold
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
