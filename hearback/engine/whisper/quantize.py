"""Convert a model's weights for inference: half precision or int8 (dynamic quantization).

This is where weights become int8. Which precision a device computes in is chosen in
`hearback.engine.devices`.
"""

import warnings

import torch
from torch import nn

from hearback.engine.whisper.backbone import BackboneModel
from hearback.engine.whisper.decoder import WhisperDecoder
from hearback.engine.whisper.encoder import WhisperEncoder


def convert_weights(model: BackboneModel, dtype: torch.dtype) -> None:
    """Convert a Whisper's weights to `dtype`, in place; for inference only.

    - float16, bfloat16: linear and convolution weights are stored in that type. Autocast alone
      would keep a float32 copy or round the weights again for every batch.
    - int8: linear weights are quantized per row, activations per batch ("dynamic quantization").
    - float32: no change.

    Heads, layer norms, position embeddings and a recogniser of phones stay in float32.
    """
    for part in model.parts:
        backbone = model.get_submodule(part)
        if not isinstance(backbone, WhisperEncoder | WhisperDecoder):
            continue
        if dtype == torch.int8:
            with warnings.catch_warnings():  # torch deprecates this API in favour of torchao
                warnings.simplefilter("ignore")
                torch.ao.quantization.quantize_dynamic(
                    backbone,
                    {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig},
                    inplace=True,
                )
        elif dtype != torch.float32:
            for module in backbone.modules():
                if isinstance(module, nn.Linear | nn.Conv1d):
                    module.to(dtype)
            if isinstance(backbone, WhisperDecoder):  # the output layer shares these weights
                backbone.embed_tokens.to(dtype)
