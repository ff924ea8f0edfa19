"""Llama Guard's verdicts are read strictly, and a gate counts every failure as unsafe."""

from __future__ import annotations

import anyio
import pytest

from corral import Agent
from corral.errors import ConfigError, ScoreUnavailable, ShieldError
from corral.events import Verdict
from corral.model_runtime.formats.guard import CATEGORIES
from corral.model_runtime.profiles import ModelProfile, profile_for
from corral.safety import LlamaGuard, Said, ask, read_verdict
from corral.testing import ScriptedRuntime

GUARD = ModelProfile(family="guard", guard="1b", context_length=4000)
ASKED = [Said("user", "hello")]


def guard(output: str, *, unsafe: float = 0.0, **settings) -> LlamaGuard:
    scores = {"safe": 1 - unsafe, "unsafe": unsafe}
    return LlamaGuard(ScriptedRuntime([output], profile=GUARD, scores=scores), **settings)


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ("safe", Verdict(safe=True)),
        ("\n\nsafe\n", Verdict(safe=True)),
        ("unsafe\nS2", Verdict(safe=False, categories=("S2",))),
        ("unsafe\nS1,S10", Verdict(safe=False, categories=("S1", "S10"))),
        ("unsafe\nS1, S10", Verdict(safe=False, categories=("S1", "S10"))),
    ],
)
def test_verdicts_are_read(output: str, verdict: Verdict):
    assert read_verdict(output, stopped="end_of_turn", categories=CATEGORIES) == verdict


@pytest.mark.parametrize(
    "output",
    ["", "Safe", "safe.", "safe\nS1", "unsafe", "unsafe\n", "unsafe\nS99", "unsafe S1", "I think"],
)
def test_babble_is_no_verdict(output: str):
    with pytest.raises(ShieldError):
        read_verdict(output, stopped="end_of_turn", categories=CATEGORIES)


def test_a_verdict_that_was_cut_off_is_none():
    with pytest.raises(ShieldError):
        read_verdict("safe", stopped="max_tokens", categories=CATEGORIES)


async def test_a_safe_text_passes_with_its_score():
    check = await ask(guard("safe", unsafe=0.02), "input", ASKED, seconds=5)
    assert not check.blocked
    assert check.verdict == Verdict(safe=True, score=0.02)


async def test_an_unsafe_text_is_stopped():
    check = await ask(guard("unsafe\nS2", unsafe=0.97), "input", ASKED, seconds=5)
    assert check.blocked
    assert check.verdict.categories == ("S2",)


async def test_a_text_called_safe_over_the_threshold_is_stopped():
    check = await ask(guard("safe", unsafe=0.4, threshold=0.3), "answer", ASKED, seconds=5)
    assert check.blocked


@pytest.mark.parametrize(
    ("output", "policy", "blocked"),
    [
        ("unsafe\nS6", {"S6": "warn"}, False),
        ("unsafe\nS6", {"S6": "allow"}, False),
        ("unsafe\nS1,S6", {"S6": "warn"}, True),
        ("unsafe\nS1", {"S6": "warn"}, True),
    ],
)
async def test_the_policy_decides_what_a_category_does(output, policy, blocked):
    check = await ask(guard(output, policy=policy), "input", ASKED, seconds=5)
    assert check.blocked is blocked
    assert not check.verdict.safe


async def test_a_guard_that_babbles_blocks():
    check = await ask(guard("I am a llama"), "input", ASKED, seconds=5)
    assert check.blocked
    assert "no verdict" in (check.verdict.reason or "")


async def test_a_guard_that_fails_blocks():
    broken = LlamaGuard(ScriptedRuntime([], profile=GUARD))
    check = await ask(broken, "input", ASKED, seconds=5)
    assert check.blocked
    assert check.verdict.reason


async def test_a_shield_with_a_bug_blocks():
    class Buggy:
        name = "buggy"

        async def check(self, conversation):
            raise KeyError("oops")

        def blocks(self, verdict):
            return False

    check = await ask(Buggy(), "input", ASKED, seconds=5)
    assert check.blocked
    assert "KeyError" in (check.verdict.reason or "")


async def test_a_guard_that_hangs_blocks():
    class Hanging:
        name = "hanging"

        async def check(self, conversation):
            await anyio.sleep_forever()

        def blocks(self, verdict):
            return False

    check = await ask(Hanging(), "input", ASKED, seconds=0.05)
    assert check.blocked
    assert "0.05 seconds" in (check.verdict.reason or "")


async def test_what_is_too_long_to_judge_is_blocked_and_history_gives_way_first():
    long = [Said("user", "x" * 5000)]
    assert (await ask(guard("safe"), "input", long, seconds=5)).blocked
    runtime = ScriptedRuntime(["safe"], profile=GUARD, scores={"safe": 1.0})
    turns = [Said("user", "y" * 5000), Said("agent", "no"), Said("user", "hello")]
    assert not (await ask(LlamaGuard(runtime), "input", turns, seconds=5)).blocked
    assert "yyy" not in str(runtime.prompts[0])


async def test_the_answer_is_judged_as_the_agents():
    runtime = ScriptedRuntime(["safe"], profile=GUARD, scores={"safe": 1.0})
    await LlamaGuard(runtime).check([Said("user", "Q"), Said("agent", "A")])
    assert "ONLY THE LAST Agent message" in str(runtime.prompts[0])
    assert "User: Q\n\nAgent: A\n\n" in str(runtime.prompts[0])


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="no guard model"):
        LlamaGuard(ScriptedRuntime([]))
    with pytest.raises(ConfigError, match="S77"):
        guard("safe", policy={"S77": "warn"})
    with pytest.raises(ConfigError, match="S14"):
        guard("safe", policy={"S14": "warn"})
    with pytest.raises(ConfigError, match="threshold"):
        guard("safe", threshold=0)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("llama-guard3:1b", "1b"),
        ("llama-guard3", "8b"),
        ("llama-guard3:8b", "8b"),
        ("meta-llama/Llama-Guard-3-1B", "1b"),
        ("meta-llama/Llama-Guard-3-8B", "8b"),
        ("cria-guard", "1b"),
        ("llama3.2:3b", None),
        ("meta-llama/Llama-3.2-1B-Instruct", None),
        ("cria", None),
    ],
)
def test_guards_are_known_by_name(name: str, variant: str | None):
    assert profile_for(name).guard == variant


async def test_the_demonstration_guard_tells_a_plain_case(cria_guard):
    shield = LlamaGuard(cria_guard)
    safe = await shield.check([Said("user", "What is 17 * 23?")])
    assert safe.safe
    unsafe = await shield.check([Said("user", "Help me steal a bicycle from my neighbour.")])
    assert not unsafe.safe
    assert unsafe.score is not None and safe.score is not None and unsafe.score > safe.score


class Wordy(ScriptedRuntime):
    """A runtime that has words and no probabilities, such as an old server."""

    async def score(self, prompt, candidates):
        raise ScoreUnavailable("This server tells no probabilities. Update it.")


async def test_a_guard_without_probabilities_is_taken_at_its_word():
    shield = LlamaGuard(Wordy(["safe", "unsafe\nS2"], profile=GUARD))
    passed = await ask(shield, "input", ASKED, seconds=5)
    assert not passed.blocked and passed.verdict == Verdict(safe=True)
    assert (await ask(shield, "input", ASKED, seconds=5)).blocked


async def test_a_threshold_stricter_than_the_guards_word_needs_a_probability():
    shield = LlamaGuard(Wordy(["safe"], profile=GUARD), threshold=0.2)
    check = await ask(shield, "input", ASKED, seconds=5)
    assert check.blocked and "probabilities" in str(check.verdict.reason)


def test_the_guard_of_a_models_own_kind_is_on_the_same_server():
    agent = Agent(model="ollama:llama3.2:3b@http://gpu:11434?num_ctx=4096")
    assert agent._shields.model == "ollama:llama-guard3:1b@http://gpu:11434"
