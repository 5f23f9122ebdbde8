"""A causal language model in bfloat16: what does it take to explain the next token's logit by the tokens of a prompt?

    python benchmarks/causal.py [tokens ...] [--device cpu]

LLaMA's architecture with random weights, 12 layers 768 wide (134 million parameters); one prompt against one of blanks, one output. Prints
by the prompt's length the memory above the weights (on a CPU the resident memory of a process of its own) and the time of a forward and
backward pass, of making the explainer, which runs batches of two and three prompts to find the batch in the model's tensors, and of
explaining; and the error of additivity relative to the output's difference.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import transformers
from results import machine
from timing import peak_memory
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

OPTIONS = {"use_cache": False, "logits_to_keep": 1}


def model(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12
    )
    return transformers.LlamaForCausalLM(config).bfloat16().to(device).eval().requires_grad_(False)


def next_token(result: transformers.modeling_outputs.CausalLMOutputWithPast) -> Tensor:
    return result.logits[:, -1]


def measure(tokens: int, device: torch.device) -> str:
    """A row of the table."""
    net = model(device)
    prompt = torch.randint(32000, (1, tokens)).to(device)
    blanks = torch.zeros_like(prompt)
    target = int(next_token(net(prompt, **OPTIONS)).argmax())
    explainer, found = [], []

    def gradient() -> None:
        embedded = net.get_input_embeddings()(prompt).requires_grad_()
        next_token(net(inputs_embeds=embedded, **OPTIONS))[0, target].backward()

    def make() -> None:
        explainer[:] = [DeepExplainer(net, blanks, output=next_token, kwargs=OPTIONS)]

    def explain() -> None:
        found[:] = [explainer[0].attribute(prompt, target, check_additivity="ignore")]

    def cell(work: Callable[[], None]) -> str:
        started = time.perf_counter()
        memory = peak_memory(work, device)
        return f"{memory / 2**20:.0f} MiB, {time.perf_counter() - started:.1f} s"

    gradient()
    cells = [cell(work) for work in (gradient, make, explain)]
    error = found[0].convergence_delta / (found[0].output - found[0].expected_value)
    return f"| {tokens} | {' | '.join(cells)} | {float(error.abs()):.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokens", nargs="*", type=int, default=[32, 128, 512], help="the prompts' lengths")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument(
        "--row", action="store_true", help="print a row of the table for the first length, and nothing else"
    )
    arguments = parser.parse_args()
    if arguments.row:
        print(measure(arguments.tokens[0], arguments.device))
        return
    print(
        f"{machine(arguments.device)}\n\n| tokens | forward and backward | explainer | explanation | additivity error |"
    )
    print("|---|---|---|---|---|", flush=True)
    for tokens in arguments.tokens:
        command = [sys.executable, __file__, str(tokens), "--row", f"--device={arguments.device}"]
        print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
