"""Ask the base for its own answers, which cria is to keep: `python -m training.distill FOLDER`.

FOLDER is the converted base. Each question of `data/base_questions.txt` is put to it in its own
chat format, greedily; the first sentence of its answer, if it isn't long, goes into
`data/knowledge_base.txt`, in the form of `data/knowledge.txt`. So the data is the base's own words,
and teaches no more than to say them in Llama's format.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["BaseChat", "main", "shortened"]

DATA = Path(__file__).parent / "data"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's own chat template puts in front where no instructions are given."""


class BaseChat:
    """The base without adapter, asked in its own chat format (ChatML).

    Its message header and end token bear Llama's names in the converted folder.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from training.trees import FolderEncoder

        self._encoder = FolderEncoder(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def _prompt(self, question: str) -> list[int]:
        start, end = (self._encoder.special_id(t) for t in ("<|start_header_id|>", "<|eot_id|>"))
        text = self._encoder.encode_text
        ids: list[int] = []
        for role, said in (("system", SYSTEM), ("user", question)):
            ids += [start, *text(f"{role}\n{said}"), end, *text("\n")]
        return [*ids, start, *text("assistant\n")]

    def ask(self, questions: Sequence[str], *, max_tokens: int = 80) -> list[str]:
        """A greedy answer to each question, computed together; without its end where it is cut."""
        import torch

        prompts = [self._prompt(question) for question in questions]
        longest = max(map(len, prompts))
        pad = self._encoder.special_id("<|finetune_right_pad_id|>")
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            out = self._model.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=max_tokens
            )
        tokenizer = self._encoder.tokenizer
        return [
            tokenizer.decode(row[longest:].tolist(), skip_special_tokens=True).strip()
            for row in out
        ]


def shortened(answer: str, *, words: int = 32) -> str:
    """The first sentence of an answer; empty if it is too long or not whole.

    What comes after it is, in so small a model, too often wrong.
    """
    first = answer.split("\n", 1)[0].strip()
    sentence = re.match(r".+?[.!?](?=\s|$)", first)
    short = sentence[0] if sentence else ""
    clean = " / " not in short and " => " not in short
    return short if clean and len(short.split()) <= words else ""


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the converted base")
    parser.add_argument("--batch", type=int, default=24)
    options = parser.parse_args(arguments)
    lines = (DATA / "base_questions.txt").read_text(encoding="utf-8").splitlines()
    questions = [line for line in lines if line and not line.startswith("#")]
    chat = BaseChat(options.folder)
    kept = ["# The base's own answers to base_questions.txt, written by training/distill.py."]
    for start in range(0, len(questions), options.batch):
        asked = questions[start : start + options.batch]
        for question, answer in zip(asked, chat.ask(asked), strict=True):
            short = shortened(answer)
            if short:
                kept.append(f"{question} => {short}")
        print(f"{start + len(asked)} of {len(questions)} asked", flush=True)
    (DATA / "knowledge_base.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    print(f"{len(kept) - 1} of {len(questions)} answers kept")


if __name__ == "__main__":
    main()
