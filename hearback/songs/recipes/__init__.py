"""Recipes, one module each: `python -m hearback.songs.recipes.cnn4 --fold 0` trains a fold."""
