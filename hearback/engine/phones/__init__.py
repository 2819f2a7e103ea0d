"""Phones: a small recogniser of phones in speech, and the phones of written words."""
