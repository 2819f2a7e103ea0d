"""Why a recording has no score, though the models gave it one."""

from hearback.engine.data.problems import count_noun
from hearback.reading.scoring import status
from hearback.reading.scoring.acoustics import Acoustics
from hearback.reading.scoring.decoder_evidence import DecoderEvidence
from hearback.reading.scoring.status import Fault

# Of the speech's samples: with more, even well-read sentences score low.
MAX_CLIPPED_SHARE = 0.2
# The fastest of 2,298 readings of speechocean762 takes 0.29 s a word.
SHORTEST_WORD_SECONDS = 0.1


def find_fault(
    probability: float,
    acoustics: Acoustics,
    n_words: int,
    break_note: str,
    evidence: DecoderEvidence | None,
) -> Fault | None:
    """Return why a probability of the ensemble is no score; None if it is one.

    `n_words` are those of the text. `break_note` says where speech is missing from the file; "" for
    a whole recording. `evidence` is that of a decoder, if there is one.
    """
    # From 0.5 on, the text was recognised: it was said in English, and as a whole.
    if probability < 0.5:
        if fault := find_no_reading(acoustics.seconds, n_words, acoustics.is_tone, evidence):
            return fault
        if break_note:
            what = f"{break_note}, so a part of the text may be missing"
            return Fault(status.UNREADABLE, what, "copy the recording again, or record it again")
    return find_clipped(acoustics.clipped_share)


def find_no_reading(
    seconds: float, n_words: int, is_tone: bool, evidence: DecoderEvidence | None
) -> Fault | None:
    """Return the fault of a clip in which nobody can have read so many words of English.

    `is_tone` is that of `Acoustics`; `evidence` is None if no decoder has processed the clip.
    """
    return find_too_short(seconds, n_words) or find_no_english(is_tone, evidence)


def find_too_short(seconds: float, n_words: int) -> Fault | None:
    """Return the fault of a recording in which nobody could say so many words."""
    if seconds >= SHORTEST_WORD_SECONDS * n_words:
        return None
    what = f"{seconds:.1f} s are too short for {count_noun(n_words, 'word')}"
    return Fault(status.TOO_SHORT, what, "record it again, or correct the text")


def find_clipped(share: float) -> Fault | None:
    """Return the fault of a recording of which a share is cut off; None if that is little."""
    if share <= MAX_CLIPPED_SHARE:
        return None
    what = f"{share:.0%} of the speech is cut off at the peak"
    return Fault(status.CLIPPED, what, "record it again with a lower level")


def find_no_english(is_tone: bool, evidence: DecoderEvidence | None) -> Fault | None:
    """Return the fault of a clip without English speech; None for others.

    `is_tone` is that of `Acoustics`; `evidence` is None if no decoder has processed the clip.
    """
    what = None
    if is_tone or (evidence is not None and evidence.is_no_speech):
        what = "no speech is recognised, only noise, music or a tone"
    elif evidence is not None and evidence.is_not_understood:
        what = "no English words are recognised, but another language, several voices, or noise"
    return None if what is None else Fault(status.NO_ENGLISH, what, "listen to it")
