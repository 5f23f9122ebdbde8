"""Hugging Face's models as they are, in small configurations with random weights; benchmarks/models.py prints a table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
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


@dataclass(frozen=True)
class Other:
    """A model that is not called by one of the three ways above, or that is there for one mechanism of its own.

    ``arguments``: the configuration's. ``call`` takes the model and its inputs, of these ``shapes``, to what it returns. ``model``: its
    class where it is not that of ``AutoModel``.
    """

    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    call: Callable[..., Any]
    model: str = ""


_SENTENCE, _IMAGE = (TOKENS, WIDTH), (3, SIZE, SIZE)
_TWO_STACKS = {"d_model": WIDTH, "vocab_size": VOCABULARY} | {
    f"{part}_{name}": number
    for part in ("encoder", "decoder")
    for name, number in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 48))
}
_SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}


def _words(model: nn.Module, x: Tensor) -> Any:
    return model(inputs_embeds=x)


def _two_sentences(model: nn.Module, x: Tensor, y: Tensor) -> Any:
    return model(inputs_embeds=x, decoder_inputs_embeds=y)


def _image(model: nn.Module, x: Tensor) -> Any:
    return model(x)


def _series(model: nn.Module, x: Tensor) -> Any:
    """With times that are the same for every sample."""
    times = torch.linspace(0, 1, 13, dtype=x.dtype).view(1, -1, 1).expand(len(x), -1, -1)
    future = {"future_values": x.new_ones(len(x), 3), "future_time_features": times[:, 10:]}
    return model(x, past_time_features=times[:, :10], past_observed_mask=torch.ones_like(x), **future)


def _decisions(model: nn.Module, states: Tensor, actions: Tensor, rewards: Tensor) -> Any:
    steps = torch.arange(states.shape[1]).expand(len(states), -1)
    found = model(states=states, actions=actions, rewards=rewards, returns_to_go=rewards, timesteps=steps)
    return found.action_preds


OTHERS = {
    # Two branches from one norm; sliding windows with norms of queries and keys; relative places in two streams.
    "Falcon": Other({**_WORDS, "new_decoder_architecture": True, "num_kv_heads": 2}, (_SENTENCE,), _words),
    "Gemma3Text": Other({**_DECODER, "head_dim": 8, "sliding_window": 4}, (_SENTENCE,), _words),
    "XLNet": Other(
        {"d_model": WIDTH, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": VOCABULARY}, (_SENTENCE,), _words
    ),
    "GPTJ": Other(
        {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": VOCABULARY}, (_SENTENCE,), _words
    ),
    "GPTNeo": Other(
        {"hidden_size": WIDTH, "num_layers": 2, "num_heads": 4, "vocab_size": VOCABULARY, "window_size": 3}
        | {"attention_types": [[["global", "local"], 1]]},
        (_SENTENCE,),
        _words,
    ),
    # Windows by as_strided; blocks of keys, some at random but always the same; a pseudo-inverse by iteration.
    "Longformer": Other({**_WORDS, "attention_window": 4, "max_position_embeddings": 32}, (_SENTENCE,), _words),
    "BigBird": Other(
        {**_WORDS, "block_size": 2, "num_random_blocks": 1, "max_position_embeddings": 64}, ((24, WIDTH),), _words
    ),
    "Nystromformer": Other({**_WORDS, "num_landmarks": TOKENS, "segment_means_seq_len": TOKENS}, (_SENTENCE,), _words),
    # Attention by convolutions; bottlenecks; two kinds of relative attention; rotary places in the encoder.
    "SqueezeBert": Other({**_WORDS, "embedding_size": WIDTH}, (_SENTENCE,), _words),
    "MobileBert": Other(
        {**_WORDS, "embedding_size": WIDTH, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
        (_SENTENCE,),
        _words,
    ),
    "Deberta": Other(
        {**_WORDS, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16},
        (_SENTENCE,),
        _words,
    ),
    # A state space by chunks; a recurrence that writes its state into the past's place.
    "Rwkv": Other(
        {"hidden_size": WIDTH, "attention_hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
        | {"rescale_every": 0},
        (_SENTENCE,),
        _words,
    ),
    "Mamba2": Other(
        {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "num_heads": 8, "head_dim": 8}
        | {"state_size": 8, "n_groups": 2, "chunk_size": 4},
        (_SENTENCE,),
        _words,
    ),
    # An encoder and a decoder.
    "Bart": Other({**_TWO_STACKS, **_SPECIAL_TOKENS}, (_SENTENCE, (5, WIDTH)), _two_sentences),
    "T5": Other(EMBEDDINGS["T5"], (_SENTENCE, (5, WIDTH)), _two_sentences),
    "Whisper": Other(
        {**_TWO_STACKS, **_SPECIAL_TOKENS, "num_mel_bins": 8, "max_source_positions": 10},
        ((8, 20), (4, WIDTH)),
        lambda model, x, y: model(input_features=x, decoder_inputs_embeds=y),
    ),
    # Images.
    "CLIPVision": Other(_PATCHES, (_IMAGE,), _image, "CLIPVisionModel"),
    "BlipVision": Other({**_PATCHES, "initializer_range": 0.3}, (_IMAGE,), _image, "BlipVisionModel"),
    "SamVision": Other(
        {key: value for key, value in _PATCHES.items() if key != "intermediate_size"}
        | {"mlp_dim": 48, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1]},
        (_IMAGE,),
        _image,
        "SamVisionModel",
    ),
    "Swinv2": Other(ARCHITECTURES["Swin"], (_IMAGE,), _image),
    "Hiera": Other(
        {"image_size": [SIZE, SIZE], "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "num_query_pool": 1}
        | {"patch_size": [7, 7], "patch_stride": [4, 4], "patch_padding": [3, 3]}
        | {"query_stride": [2, 2], "masked_unit_size": [4, 4]},
        (_IMAGE,),
        _image,
    ),
    "PoolFormer": Other(_STAGES, (_IMAGE,), _image),
    "FocalNet": Other(
        {"image_size": SIZE, "embed_dim": 16, "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]},
        (_IMAGE,),
        _image,
    ),
    "Levit": Other(
        {"image_size": SIZE, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2]}
        | {"key_dim": [8, 8, 8], "depths": [1, 1, 1]},
        (_IMAGE,),
        _image,
    ),
    # Sounds.
    "WavLM": Other(_WAVES, ((SOUND,),), _image),
    "AST": Other(
        {**_BLOCKS, "num_mel_bins": 16, "max_length": 24, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        ((24, 16),),
        _image,
        "ASTModel",
    ),
    # Series, arrays, decisions.
    "PatchTST": Other(
        {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "prediction_length": 3}
        | {"num_hidden_layers": 2, "d_model": 16, "num_attention_heads": 2, "ffn_dim": 24},
        ((16, 2),),
        _image,
        "PatchTSTForPrediction",
    ),
    "PatchTSMixer": Other(
        {"num_input_channels": 2, "context_length": 16, "patch_length": 4, "patch_stride": 4, "prediction_length": 3}
        | {"num_layers": 2, "d_model": 8},
        ((16, 2),),
        _image,
        "PatchTSMixerForPrediction",
    ),
    "TimeSeriesTransformer": Other(
        {**_TWO_STACKS, "d_model": 16, "prediction_length": 3, "context_length": 8}
        | {"input_size": 1, "lags_sequence": [1, 2], "num_time_features": 1},
        ((10,),),
        _series,
        "TimeSeriesTransformerModel",
    ),
    "Perceiver": Other(
        {"num_latents": 4, "d_latents": 16, "d_model": WIDTH, "num_blocks": 1, "num_self_attends_per_block": 2}
        | {"num_self_attention_heads": 2, "num_cross_attention_heads": 2},
        (_SENTENCE,),
        _image,
    ),
    "DecisionTransformer": Other(
        {"state_dim": 4, "act_dim": 2, "hidden_size": WIDTH, "n_layer": 1, "n_head": 4, "max_ep_len": 20},
        ((3, 4), (3, 2), (3, 1)),
        _decisions,
    ),
}


class Called(nn.Module):
    """One of ``OTHERS`` as a function of its inputs: a few numbers a sample of what it returns."""

    def __init__(self, name: str) -> None:
        super().__init__()
        other = OTHERS[name]
        config = getattr(transformers, f"{name}Config")(**other.arguments)
        self.model = (
            getattr(transformers, other.model)(config) if other.model else transformers.AutoModel.from_config(config)
        )
        self.call = other.call

    def forward(self, *inputs: Tensor) -> Tensor:
        found = self.call(self.model, *inputs)
        return (found if isinstance(found, Tensor) else found[0]).flatten(1)[:, :5]
