"""Load the pretrained recogniser of phones and the phones of words from their directory."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from hearback.engine.errors import HearbackError
from hearback.engine.io import read_json
from hearback.engine.phones.ctc import PhoneCTC, PhoneCTCConfig
from hearback.engine.phones.layout import CONFIG, MODEL, PRONUNCIATIONS, checked
from hearback.engine.phones.tokenizer import PhoneTokenizer


def load_ctc(directory: Path) -> PhoneCTC:
    """Return the pretrained recogniser of phones, float32, in evaluation mode, on the CPU.

    Raises HearbackError if the directory is incomplete or damaged.
    """
    config, path = checked(directory, CONFIG), checked(directory, MODEL)
    try:
        model = PhoneCTC(PhoneCTCConfig.from_config(read_json(config)))
    except (ValueError, TypeError, AttributeError) as error:
        raise HearbackError(f"{config} has no sizes of the recogniser: {error}") from None
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise HearbackError(f"{path} does not fit its {CONFIG}: {reason}") from None
    return model.eval()


def load_tokenizer(directory: Path) -> PhoneTokenizer:
    """Return the phones of words and texts.

    Raises HearbackError if the directory is incomplete or damaged.
    """
    return PhoneTokenizer(checked(directory, PRONUNCIATIONS))
