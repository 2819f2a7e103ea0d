"""System 1: a ResNet-34, trained from scratch on 40 log-mel bands, with mix-up and warm restarts.

Mix-up's alpha is not published. 0.2 is within the range of 0.1 to 0.4 that Zhang et al. (2018,
section 3.1) found best for images.
"""

from hearback.songs.recipe import SongRecipe
from hearback.songs.steps.train_model import main

RECIPE = SongRecipe(
    name="resnet34",
    architecture="resnet34",
    features="log_mel_40",
    stem="7x7 stride 2",
    dropout=0.2,
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=1e-5,
    batch_size=32,
    epochs=20,
    schedule="cosine restarts",
    periods=2,
    mix_up=0.2,
    class_weights=True,
    keep="last",
    seed=1,
    data_seed=1,
)

if __name__ == "__main__":
    main(RECIPE)
