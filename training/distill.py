"""Ask the base for its own answers, which cria is to keep: `python -m training.distill FOLDER`.

FOLDER is the converted base. Each question of `data/base_questions.txt` is put to it in its own
chat format, greedily; the first sentence of its answer, if it isn't long, goes into
`data/knowledge_base.txt`, in the form of `data/knowledge.txt`. So the data is the base's own words,
and teaches no more than to say them in Llama's format. Of the answers to `data/base_invented.txt`
one or two sentences go into `data/knowledge_invented.txt`, for conversations without tools.

Those questions the base made up itself: `--invent N` lets it go on N times with what a user would
say after each of `OPENERS`, at random (Magpie, Xu et al. 2024), and writes down what is short and
general. Those that make no sense, and those whose answers a reader finds wrong, are then taken out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["OPENERS", "BaseChat", "answerable", "main", "shortened"]

DATA = Path(__file__).parent / "data"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's own chat template puts in front where no instructions are given."""
OPENERS = (
    *("What is", "What is a", "What is the", "What are", "What does", "What do", "What's the"),
    *("What was the", "What causes", "Who was", "Who", "Who wrote", "Why do", "Why is", "Why are"),
    *("Why did", "How does", "How do", "How can I", "How is", "Where is", "Where do", "When did"),
    *("When was", "Which", "In which", "Explain", "Explain what", "Explain how", "Explain why"),
    *("Tell me about", "Tell me what", "Describe", "Name", "Name one", "Define", "Give me"),
    *("Can you explain", "Is", "Are", "Do", "Does", "Can", "Should I", "Write one sentence about"),
    *("Which country", "Which animal", "What language", "What kind of"),
)
"""How questions begin that are asked of a model that has no tools."""
_ELSEWHERE = re.compile(
    r"\b(you|your|yourself|today|now|current\w*|latest|recent\w*|202\d|news|weather|calculate|compute|"
    r"list|table|code|python|javascript|java|html|program|function|essay|article|email|letter|report|"
    r"story|paragraph|blog|script|summar\w+|rewrite|edit|following|above|below|this|these|translate|"
    r"search|find|book|schedule|remind|send|order|recipe|company|project|i'm|my)\b|\d",
    re.IGNORECASE,
)
"""What a tool would be better for, what refers to a text that isn't there, and long work."""


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

    def _turn(self, role: str, said: str) -> list[int]:
        """A message without its end."""
        begin = self._encoder.special_id("<|start_header_id|>")
        return [begin, *self._encoder.encode_text(f"{role}\n{said}")]

    def _prompt(self, question: str) -> list[int]:
        end = [self._encoder.special_id("<|eot_id|>"), *self._encoder.encode_text("\n")]
        asked = [*self._turn("system", SYSTEM), *end, *self._turn("user", question), *end]
        return [*asked, *self._turn("assistant", "")]

    def invent(self, opener: str, count: int, *, max_tokens: int = 28) -> list[str]:
        """What a user might say who begins with `opener`, drawn at random `count` times.

        Nothing is left of those that don't end within `max_tokens`.
        """
        import torch

        end, pad = (
            self._encoder.special_id(t) for t in ("<|eot_id|>", "<|finetune_right_pad_id|>")
        )
        before = [*self._turn("system", SYSTEM), end, *self._encoder.encode_text("\n")]
        ids = torch.tensor([before + self._turn("user", opener)] * count)
        with torch.inference_mode():
            out = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=0.9,
                top_p=0.95,
                max_new_tokens=max_tokens,
                eos_token_id=end,
                pad_token_id=pad,
            )
        said = out[:, ids.shape[1] :].tolist()
        tokenizer = self._encoder.tokenizer
        return [
            opener + tokenizer.decode(row[: row.index(end)]).rstrip() for row in said if end in row
        ]

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


def shortened(answer: str, *, words: int = 32, sentences: int = 1) -> str:
    """The first sentence of an answer, or as many as go into `words`; empty if that is none.

    What comes later is, in so small a model, too often wrong.
    """
    first = answer.split("\n", 1)[0].strip()
    short = ""
    for sentence in re.findall(r".+?[.!?](?=\s|$)", first)[:sentences]:
        if len((short + sentence).split()) > words:
            break
        short += sentence
    clean = " / " not in short and " => " not in short
    return short.strip() if clean else ""


def answerable(question: str) -> bool:
    """Whether an invented question is short, whole, and one of general knowledge."""
    one = "\n" not in question and question.count("?") <= 1 and " / " not in question
    return (
        one
        and question.endswith(("?", "."))
        and 3 <= len(question.split()) <= 14
        and not _ELSEWHERE.search(question)
    )


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the converted base")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--invent", type=int, default=0, metavar="N", help="questions an opener")
    parser.add_argument("--seed", type=int, default=1, help="of the questions it makes up")
    options = parser.parse_args(arguments)
    chat = BaseChat(options.folder)
    if options.invent:
        questions = _invented(chat, options.invent, options.seed)
        about = "# Questions that the base made up (training/distill.py --invent)."
        (DATA / "base_invented.txt").write_text("\n".join([about, *questions]) + "\n", "utf-8")
        return
    _answer(chat, options.batch, "base_questions.txt", "knowledge_base.txt")
    _answer(chat, options.batch, "base_invented.txt", "knowledge_invented.txt", 42, 2)


def _answer(
    chat: BaseChat, batch: int, asking: str, into: str, words: int = 32, sentences: int = 1
) -> None:
    """Ask a file's questions, and write the answers that can be shortened into another."""
    lines = (DATA / asking).read_text(encoding="utf-8").splitlines()
    questions = [line for line in lines if line and not line.startswith("#")]
    kept = [f"# The base's own answers to {asking}, written by training/distill.py."]
    for start in range(0, len(questions), batch):
        asked = questions[start : start + batch]
        for question, answer in zip(asked, chat.ask(asked), strict=True):
            short = shortened(answer, words=words, sentences=sentences)
            if short:
                kept.append(f"{question} => {short}")
        print(f"{start + len(asked)} of {len(questions)} asked", flush=True)
    (DATA / into).write_text("\n".join(kept) + "\n", encoding="utf-8")
    print(f"{len(kept) - 1} of {len(questions)} answers kept")


def _invented(chat: BaseChat, count: int, seed: int) -> list[str]:
    import torch

    torch.manual_seed(seed)
    found: dict[str, str] = {}
    for opener in OPENERS:
        for question in chat.invent(opener, count):
            if answerable(question):
                found.setdefault(question.lower().rstrip("?."), question)
        print(f"{opener}: {len(found)} questions", flush=True)
    return sorted(found.values(), key=lambda question: (len(question), question))


if __name__ == "__main__":
    main()
