"""The ways to pool frames into one vector, which recipes name (`heads.Pooler`)."""

from typing import Literal

Pooling = Literal["mean", "attention", "attention+mean"]
