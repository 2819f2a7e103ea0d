"""System 2's CNN: four convolution layers, trained from scratch on 128 mel bands in dB.

Published: the number of layers, the learning rate, "MultiStepLR", epochs, batch size, mix-up and
the kinds of augmentation. Chosen here: the layers (`hearback.songs.models.classifiers.Cnn4`), Adam
(the published learning rate is its default), the milestones, dropout, and the probabilities of
masks and reversal.

As published, rare classes are both sampled more often and weighted more in the loss. This corrects
for their rarity twice, so their probabilities are too high.
"""

from hearback.songs.augment import Augmentation
from hearback.songs.recipe import SongRecipe
from hearback.songs.steps.train_model import main

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
    augment=Augmentation(reverse=0.5, time_masks=0.5, frequency_masks=0.5),
    class_weights=True,
    balanced_sampling=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
