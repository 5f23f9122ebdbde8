"""Unmodified Hugging Face models with random weights: are they explained, and do the values add up?

    python benchmarks/models.py [names ...]

Small configurations, 3 inputs x 4 baselines, float32; images or token embeddings in, five elements of the last hidden state out.
Prints the largest |sum of values - output difference| relative to the largest difference (about 1e-7 to 1e-6 is rounding), or the
error's first line.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import transformers
from timing import additivity_error
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

SIZE, TOKENS, WIDTH, OUTPUTS = 32, 7, 32, 5

_BLOCKS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_PATCHES = {**_BLOCKS, "image_size": SIZE, "patch_size": 8}
_DECODER = {**_BLOCKS, "num_key_value_heads": 2, "vocab_size": 50, "pad_token_id": 0}
_STAGES = {"depths": [1, 2], "hidden_sizes": [16, 32]}

#: The configuration's class without "Config", and its arguments.
IMAGES = {
    "ResNet": {**_STAGES, "embedding_size": 8, "layer_type": "basic"},
    "RegNet": {"depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 8, "groups_width": 8},
    "ConvNext": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]},
    "ConvNextV2": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]},
    "ViT": _PATCHES,
    "DeiT": _PATCHES,
    "Beit": _PATCHES,
    "Dinov2": {**_PATCHES, "mlp_ratio": 2},
    "Swin": {
        "image_size": SIZE,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
    },
    "Segformer": {},
    "MobileNetV2": {"depth_multiplier": 0.35},
    "MobileNetV1": {"depth_multiplier": 0.25},
}
EMBEDDINGS = {
    "Bert": {**_BLOCKS, "vocab_size": 50},
    "Roberta": {**_BLOCKS, "vocab_size": 50},
    "DistilBert": {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 50},
    "Electra": {**_BLOCKS, "vocab_size": 50, "embedding_size": WIDTH},
    "Albert": {**_BLOCKS, "vocab_size": 50, "embedding_size": WIDTH},
    "DebertaV2": {**_BLOCKS, "vocab_size": 50},
    "MPNet": {**_BLOCKS, "vocab_size": 50},
    "FNet": {**_BLOCKS, "vocab_size": 50},
    "GPT2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": 50},
    "GPTNeoX": {**_BLOCKS, "vocab_size": 50},
    "OPT": {
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
    },
    "Llama": _DECODER,
    "Mistral": _DECODER,
    "Qwen2": _DECODER,
    "Phi": _DECODER,
    "Mamba": {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": 50},
}


class Embedded(nn.Module):
    """A language model as a function of its token embeddings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.model(inputs_embeds=embeddings).last_hidden_state


def explain(name: str) -> tuple[float, float]:
    """(additivity error, seconds)"""
    torch.manual_seed(0)
    arguments = IMAGES[name] if name in IMAGES else EMBEDDINGS[name]
    plain = transformers.AutoModel.from_config(getattr(transformers, f"{name}Config")(**arguments)).eval()
    width = WIDTH if name != "OPT" else plain.config.word_embed_proj_dim
    shape = (3, SIZE, SIZE) if name in IMAGES else (TOKENS, width)
    model = plain if name in IMAGES else Embedded(plain)
    X, baselines = torch.randn(3, *shape), torch.randn(4, *shape)

    def outputs(result: object) -> Tensor:
        hidden = result if isinstance(result, Tensor) else result.last_hidden_state
        return hidden.flatten(1)[:, :OUTPUTS]

    started = time.perf_counter()
    values = DeepExplainer(model, baselines, output=outputs).attribute(X, check_additivity=False).values
    seconds = time.perf_counter() - started
    with torch.no_grad():
        difference = outputs(model(X)) - outputs(model(baselines)).mean(0)
    return additivity_error(values.flatten(1, -2).sum(1, dtype=torch.float64), difference), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of the configurations, without 'Config'; all by default")
    names = parser.parse_args().names or [*IMAGES, *EMBEDDINGS]
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| model | additivity error | time |\n|---|---|---|")
    for name in names:
        try:
            error, seconds = explain(name)
            print(f"| {name} | {error:.0e} | {seconds:.1f} s |", flush=True)
        except Exception as error:
            print(f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:150]} | |", flush=True)


if __name__ == "__main__":
    main()
