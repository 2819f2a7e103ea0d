"""Hearback scores spoken reading: how likely is it that a learner said the expected text?"""

__version__ = "0.2.0"
