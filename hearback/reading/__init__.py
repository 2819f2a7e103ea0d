"""The reading competition: did a learner say the expected text?"""
