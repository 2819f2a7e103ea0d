"""Our own `whisper`, half of its snippets in pieces that are played in another order.

Without words it hears as well as with them, where `whisper` has learned the six words that all of
the training sings; with them it finds fewer of several singers (docs/songs.md).
"""

from dataclasses import replace

from songs import train_whisper
from songs.training import main

RECIPE = replace(train_whisper.RECIPE, name="whisper_shuffled", shuffled=0.5)

if __name__ == "__main__":
    main(RECIPE)
