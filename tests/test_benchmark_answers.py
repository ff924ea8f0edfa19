"""The benchmark of answers: it asks every example that runs on cria, and knows right from wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmark_scripts import load_benchmark

answers = load_benchmark("answers")


def test_every_example_that_runs_on_cria_is_asked_in_five_phrasings():
    examples = answers.ROOT / "examples"
    on_cria = {
        path.name
        for path in (*examples.glob("*.yaml"), *examples.glob("*.py"))
        if "cria" in path.read_text("utf-8")
    }
    assert {row.example for row in answers.ROWS} == on_cria
    assert all(len({text for text, _ in row.asked}) == 5 for row in answers.ROWS)


@pytest.fixture
async def shipped():
    """The turn of the quickstart's own question, and what the checks go by."""
    models = answers.Models("cria", "cria-guard")
    agent = answers.load_example(answers.ROOT / "examples" / "quickstart.py")
    await agent.open(opener=models)
    asked = "Where is order 1047?"
    result = await agent.run(asked)
    schemas = {tool.spec.name: tool.spec.parameters for tool in agent.tools}
    yield lambda wanted, turn=result: answers.failing(turn, wanted, schemas, asked), result
    await agent.aclose()
    await models.aclose()


async def test_a_right_turn_counts_and_each_wrong_one_is_named(shipped):
    failing, result = shipped
    assert failing(answers.order(1047)) is None
    assert "order_id is 1047" in failing(answers.order(1048))
    assert failing(replace(answers.order(1047), tool="cancel_order")).startswith("calls ")
    assert "lacks 'lost'" in failing(replace(answers.order(1047), facts=("lost",)))
    assert "says 'shipped'" in failing(replace(answers.order(1047), never=("shipped",)))
    assert failing(answers.order(1047), replace(result, outcome="refused")).startswith("refused")
    invented = replace(result, text=f"{result.text} It arrives in 77 days.")
    assert failing(answers.order(1047), invented) == "77 comes from nowhere"


@pytest.mark.parametrize(
    ("code", "printed", "right"),
    [
        ("print(17 * 23)", "391", True),
        ("print(17 * 23)", "392", False),
        ("print(391)", "391", False),
        ("print(17 *", "391", False),
        ("print(sum([300, 91]))", "391\n", True),
    ],
)
def test_code_counts_by_what_it_computes_and_prints(code, printed, right):
    assert (answers._wrong_code(code, printed, 391) is None) is right
