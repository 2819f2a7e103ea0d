"""In which numbers a device computes, and how the weights are held for that."""

import warnings

import torch
from torch import nn

from hearback.engine.whisper.backbone import BackboneModel
from hearback.engine.whisper.decoder import WhisperDecoder


def hold_weights(model: BackboneModel, dtype: torch.dtype) -> None:
    """Hold the backbone's weights in the type of their matrix products; for inference only.

    In half precision, autocast would round the same weights, but keep both or round them for each
    batch. For int8, weights are quantised here by rows, and activations when they come, by batch
    ("dynamic quantisation"). Heads, norms and positions stay in float32.
    """
    for part in model.parts:
        backbone = model.get_submodule(part)
        if dtype == torch.int8:
            with warnings.catch_warnings():  # it is to leave torch for torchao one day
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
            if isinstance(backbone, WhisperDecoder):  # its output layer
                backbone.embed_tokens.to(dtype)
