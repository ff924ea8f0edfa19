"""What int8 costs: the perplexity of a model in two precisions, over the same text.

    python -m benchmarks.perplexity                      # SmolLM2-135M-Instruct, cria's base
    python -m benchmarks.perplexity --folder FOLDER --tokens 20000

The text is this repository's own: its documentation and its sources, in windows of 1,000 tokens.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import anyio

ROOT = Path(__file__).parent.parent
WINDOW = 1000


def text() -> str:
    """The documentation first, which reads most like what a model is asked about."""
    pages = [
        ROOT / "README.md",
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("corral/**/*.py")),
    ]
    return "\n".join(page.read_text("utf-8") for page in pages)


def measure(precision: str, *, tokens: int, folder: Path | None = None) -> float:
    """The perplexity over the first `tokens` tokens of the text."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoConfig

    from corral.model_runtime.cria.fetch import ensure_base
    from corral.model_runtime.local.engine import Step
    from corral.model_runtime.local.loading import load_llama

    folder = folder or anyio.run(ensure_base)
    config = AutoConfig.from_pretrained(folder)
    engine = load_llama(folder, config, name="base", precision=precision)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text(), add_special_tokens=False).ids[:tokens]
    loss, count = 0.0, 0
    for begin in range(0, len(ids) - 1, WINDOW):
        window = ids[begin : begin + WINDOW + 1]
        step = Step(cache=engine.new_cache(), ids=window[:-1], wanted=len(window) - 1)
        logits = engine.forward([step])[0]
        loss += float(
            torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:]), reduction="sum")
        )
        count += len(window) - 1
    return math.exp(loss / count)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a model's folder; cria's base unless given")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    options = parser.parse_args()
    if options.tokens < 2:
        parser.error("--tokens must be 2 or more: a token is predicted from the one before it")
    found = {
        p: measure(p, tokens=options.tokens, folder=options.folder) for p in options.precisions
    }
    first = next(iter(found.values()))
    print(f"| precision | perplexity over {options.tokens:,} tokens | beside the first |")
    print("| --- | --- | --- |")
    for precision, value in found.items():
        print(f"| {precision} | {value:.3f} | {100 * (value / first - 1):+.2f} % |")


if __name__ == "__main__":
    main()
