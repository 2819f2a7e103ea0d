"""Recordings longer than a window: passages, scored in windows that follow the text.

Token scorers hear up to 30 s at once. A longer recording is cut at its pauses (`segments`), each
part gets the words that are said there (`text_split`, with the `likelihood` of a token scorer;
`jumps`: where a reader skipped lines), and the parts are scored as rows of their own, whose scores
are put together again (`rows`). Scores of long texts are also corrected for their length
(`length`). How well this works: docs/results/long_recordings.md.
"""
