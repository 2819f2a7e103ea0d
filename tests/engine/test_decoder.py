"""The decoder equals that of Transformers, is causal, and shares recordings among texts."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder as TheirDecoder

from hearback.engine.errors import HearbackError
from hearback.engine.project import ROOT
from hearback.engine.whisper.decoder import DecoderConfig, WhisperDecoder
from hearback.engine.whisper.weights import read_config, read_tensors
from tests.conftest import TINY_DECODER

TINY_EN = ROOT / "assets" / "whisper-tiny.en"


def their_decoder(config: DecoderConfig) -> TheirDecoder:
    sizes: dict[str, Any] = config.as_dict()
    return TheirDecoder(WhisperConfig(**sizes, pad_token_id=0)).eval()


def random_decoder() -> WhisperDecoder:
    """A decoder with every weight perturbed: fresh layer norms and biases would hide mistakes."""
    torch.manual_seed(0)
    decoder = WhisperDecoder(TINY_DECODER)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return decoder.eval()


def make_inputs(n_texts: int = 2, n_tokens: int = 7) -> tuple[Tensor, Tensor]:
    """Tokens, (n_texts, n_tokens), and frames of 2 recordings, (2, 11, 16)."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(TINY_DECODER.vocab_size, (n_texts, n_tokens), generator=generator)
    return tokens, torch.randn(2, 11, TINY_DECODER.d_model, generator=generator)


def test_equals_the_decoder_of_transformers() -> None:
    ours, theirs = random_decoder(), their_decoder(TINY_DECODER)
    theirs.load_state_dict(ours.state_dict())
    tokens, frames = make_inputs()
    with torch.no_grad():
        expected = theirs(input_ids=tokens, encoder_hidden_states=frames).last_hidden_state
        hidden = ours(tokens, frames, torch.arange(2))
    assert hidden.std() > 0.1
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_equals_tiny_en_s_decoder_with_its_real_weights() -> None:
    from transformers import WhisperForConditionalGeneration

    ours = WhisperDecoder(DecoderConfig.from_config(read_config(TINY_EN)))
    ours.load_state_dict(read_tensors(TINY_EN, "decoder"))
    theirs = WhisperForConditionalGeneration.from_pretrained(TINY_EN).float().eval()
    torch.manual_seed(0)
    tokens, frames = torch.randint(50_000, (2, 9)), torch.randn(2, 50, ours.config.d_model)
    with torch.no_grad():
        expected = theirs(decoder_input_ids=tokens, encoder_outputs=(frames,)).logits
        logits = F.linear(ours(tokens, frames, torch.arange(2)), ours.embed_tokens.weight)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)


def test_states_do_not_depend_on_later_tokens() -> None:
    decoder = random_decoder()
    tokens, frames = make_inputs()
    clips = torch.arange(2)
    with torch.no_grad():
        hidden = decoder(tokens, frames, clips)
        for n_tokens in range(1, tokens.shape[1]):
            cut = decoder(tokens[:, :n_tokens], frames, clips)
            torch.testing.assert_close(hidden[:, :n_tokens], cut, atol=1e-5, rtol=0)
            other = tokens.clone()
            other[:, n_tokens:] = (other[:, n_tokens:] + 1) % TINY_DECODER.vocab_size
            changed = decoder(other, frames, clips)
            torch.testing.assert_close(
                hidden[:, :n_tokens], changed[:, :n_tokens], atol=1e-5, rtol=0
            )
            assert not torch.allclose(hidden[:, n_tokens], changed[:, n_tokens], atol=1e-2)


def test_states_depend_on_earlier_tokens() -> None:
    decoder = random_decoder()
    tokens, frames = make_inputs()
    other = tokens.clone()
    other[:, 0] = (other[:, 0] + 1) % TINY_DECODER.vocab_size
    with torch.no_grad():
        before, after = (decoder(some, frames, torch.arange(2)) for some in (tokens, other))
    assert ((before - after).abs().amax(-1) > 1e-3).all()


def test_texts_of_one_recording_are_independent() -> None:
    decoder = random_decoder()
    tokens, frames = make_inputs(n_texts=5)
    clips = torch.tensor([0, 1, 1, 0, 1])
    with torch.no_grad():
        together = decoder(tokens, frames, clips)
        for index, clip in enumerate(clips.tolist()):
            alone = decoder(tokens[[index]], frames[[clip]], torch.tensor([0]))
            torch.testing.assert_close(together[[index]], alone, atol=1e-5, rtol=0)
            other = decoder(tokens[[index]], frames[[1 - clip]], torch.tensor([0]))
            assert not torch.allclose(together[[index]], other, atol=1e-2)


def test_only_embeddings_have_no_gradient() -> None:
    decoder = random_decoder()
    tokens, frames = make_inputs()
    decoder(tokens, frames, torch.arange(2)).square().sum().backward()
    without = {name for name, parameter in decoder.named_parameters() if parameter.grad is None}
    assert without == {"embed_tokens.weight", "embed_positions.weight"}


def test_a_config_is_unchanged_by_its_dict() -> None:
    config = {**TINY_DECODER.as_dict(), "encoder_layers": 9, "model_type": "whisper"}
    assert DecoderConfig.from_config(config) == TINY_DECODER


def test_a_configuration_without_a_decoder_is_an_error() -> None:
    with pytest.raises(HearbackError, match=r"has no decoder_layers: this model needs a whole"):
        DecoderConfig.from_config({"d_model": 2})
