"""Hugging Face's models as they are, in small configurations with random weights; benchmarks/models.py prints a table of them."""

from __future__ import annotations

import transformers
from torch import Tensor, nn

SIZE, TOKENS, WIDTH, VOCABULARY, SOUND = 32, 7, 32, 50, 600

_BLOCKS = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_PATCHES = {**_BLOCKS, "image_size": SIZE, "patch_size": 8}
_WORDS = {**_BLOCKS, "vocab_size": VOCABULARY}
_DECODER = {**_WORDS, "num_key_value_heads": 2, "pad_token_id": 0}
_STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
_WAVES = {**_WORDS, "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8)} | {
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}

#: The configuration's class without "Config", and its arguments.
IMAGES = {
    "ResNet": {"depths": [1, 2], "hidden_sizes": [16, 32], "embedding_size": 8, "layer_type": "basic"},
    "RegNet": {"depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 8, "groups_width": 8},
    "ConvNext": _STAGES,
    "ConvNextV2": _STAGES,
    "EfficientNet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}
    | {"initializer_range": 0.3},  # with the default the values of so deep a net underflow
    "MobileNetV1": {"depth_multiplier": 0.25},
    "MobileNetV2": {"depth_multiplier": 0.35},
    "ViT": _PATCHES,
    "DeiT": _PATCHES,
    "Beit": _PATCHES,
    "Dinov2": {**_PATCHES, "mlp_ratio": 2},
    "Swin": {"image_size": SIZE, "patch_size": 4, "embed_dim": 16, "window_size": 4}
    | {"depths": [1, 2], "num_heads": [2, 4]},
    "Segformer": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4]},
}
EMBEDDINGS = {
    "Bert": _WORDS,
    "Roberta": _WORDS,
    "DistilBert": {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": VOCABULARY},
    "Electra": {**_WORDS, "embedding_size": WIDTH},
    "Albert": {**_WORDS, "embedding_size": WIDTH},
    "DebertaV2": {**_WORDS, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16},
    "MPNet": _WORDS,
    "FNet": _WORDS,
    "ModernBert": {**_WORDS, "pad_token_id": 0},
    "T5": {"d_model": WIDTH, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": VOCABULARY},
    "GPT2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    "GPTNeoX": _WORDS,
    "OPT": {"hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"ffn_dim": 48, "vocab_size": VOCABULARY},
    "Bloom": {"hidden_size": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    "Llama": _DECODER,
    "Mistral": _DECODER,
    "Qwen2": _DECODER,
    "Qwen3": {**_DECODER, "head_dim": 8},
    "Phi": _DECODER,
    "Gemma2": {**_DECODER, "head_dim": 8},
    "Mamba": {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": VOCABULARY},
}
SOUNDS = {"Wav2Vec2": _WAVES, "Hubert": _WAVES}

ARCHITECTURES = {**IMAGES, **EMBEDDINGS, **SOUNDS}


class Embedded(nn.Module):
    """A language model as a function of its token embeddings."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.model(inputs_embeds=embeddings).last_hidden_state


def plain(name: str) -> nn.Module:
    """The model as transformers makes it, in eval mode; of T5 the encoder."""
    config = getattr(transformers, f"{name}Config")(**ARCHITECTURES[name])
    made = transformers.T5EncoderModel(config) if name == "T5" else transformers.AutoModel.from_config(config)
    return made.eval()


def explainable(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The model, as a function of its embeddings where it is a language model, and the shape of one sample."""
    model = plain(name)
    if name in EMBEDDINGS:
        return Embedded(model).eval(), (TOKENS, WIDTH)
    return model, (3, SIZE, SIZE) if name in IMAGES else (SOUND,)


def hidden(result: object, outputs: int = 5) -> Tensor:
    """That many elements of the last hidden state, ``[samples, outputs]``."""
    state = result if isinstance(result, Tensor) else result.last_hidden_state
    return state.flatten(1)[:, :outputs]
