"""Many sessions on one model: the same answers as alone, fair, bounded, and nothing left behind."""

from __future__ import annotations

import threading
import time
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
import tiny_llama

from corral.errors import ConfigError, ModelBusy, ModelError
from corral.messages import SystemMessage, UserMessage
from corral.model_runtime import Constraint, Finish, Sampling, open_runtime, render_prompt
from corral.model_runtime.cria.fetch import ensure_merged
from corral.model_runtime.local import sharing
from corral.model_runtime.local.drawing import Draw
from corral.model_runtime.local.jobs import Ended, Job
from corral.model_runtime.local.lookup import Lookup
from corral.model_runtime.local.scheduler import Scheduler
from corral.model_runtime.prompt import Prompt, Text

QUESTIONS = [
    "Name three colours.",
    "What is the capital of Italy?",
    "Write a line about the sea.",
    "Say hello in Spanish.",
    "How many legs has a spider?",
    "What is bread made of?",
    "Name a river in Africa.",
    "Who wrote Faust?",
]


def prompt_of(question: str, *, system: str = "Be brief.") -> Prompt:
    return render_prompt([SystemMessage(text=system), UserMessage(content=question)])


async def answer(runtime, prompt: Prompt, *, constraint=None, **sampling) -> tuple[str, Finish]:
    said = ""
    output = runtime.generate(prompt, sampling=Sampling(**sampling), constraint=constraint)
    async with aclosing(output):
        async for piece in output:
            if isinstance(piece, Finish):
                return said, piece
            said += piece.text
    raise AssertionError("no end")


async def together(runtime, prompts: list[Prompt], **sampling) -> list[str]:
    answers: dict[int, str] = {}

    async def one(at: int) -> None:
        answers[at] = (await answer(runtime, prompts[at], **sampling))[0]

    async with anyio.create_task_group() as tasks:
        for at in range(len(prompts)):
            tasks.start_soon(one, at)
    return [answers[at] for at in range(len(prompts))]


@pytest.mark.parametrize("model", ["cria", "cria?precision=fp32"])
async def test_eight_sessions_get_the_answers_that_they_get_alone_cached_or_not(model):
    runtime = await open_runtime(model)
    prompts = [prompt_of(question, system="Answer in a few words.") for question in QUESTIONS]
    batched = await together(runtime, prompts, max_tokens=24)
    alone = [(await answer(runtime, prompt, max_tokens=24))[0] for prompt in prompts]
    again = await together(runtime, prompts, max_tokens=24)
    await runtime.aclose()
    assert batched == alone == again


async def test_sampling_with_a_seed_is_the_same_alone_and_in_company(cria):
    prompts = [prompt_of(question) for question in QUESTIONS[:4]]
    drawn = await together(cria, prompts, max_tokens=16, temperature=1.2, top_p=0.95, seed=4)
    for prompt, said in zip(prompts, drawn, strict=True):
        alone, _ = await answer(cria, prompt, max_tokens=16, temperature=1.2, top_p=0.95, seed=4)
        assert alone == said


@pytest.mark.parametrize(
    "sampling",
    [{"top_p": 0.0}, {"temperature": 1e-40}, {"seed": 1 << 64}, {"seed": -(1 << 63) - 1}],
    ids=str,
)
async def test_settings_at_the_edge_of_what_is_allowed_draw_too(cria, sampling):
    prompt = prompt_of("Name a colour.")
    settings = {"temperature": 1.0, "seed": 3, "max_tokens": 8} | sampling
    said, finish = await answer(cria, prompt, **settings)
    assert finish.usage.output_tokens > 0
    if "seed" not in sampling:
        assert said == (await answer(cria, prompt, max_tokens=8))[0]  # only the likeliest is left


async def test_each_session_keeps_its_own_grammar(cria):
    schemas = [{"enum": ["red", "green"]}, {"type": "integer", "minimum": 3, "maximum": 5}]
    answers: dict[int, str] = {}

    async def one(at: int) -> None:
        constraint = Constraint(json_schema=schemas[at % 2])
        said, _ = await answer(
            cria, prompt_of(QUESTIONS[at]), constraint=constraint, temperature=1.0, seed=at
        )
        answers[at] = said

    async with anyio.create_task_group() as tasks:
        for at in range(6):
            tasks.start_soon(one, at)
    for at, said in answers.items():
        assert said in (['"red"', '"green"'] if at % 2 == 0 else ["3", "4", "5"])


async def test_a_long_prompt_does_not_make_a_writer_wait_for_its_end(cria):
    long = prompt_of("word " * 2500)
    seen: list[float] = []
    read: list[float] = []

    async def write() -> None:
        output = cria.generate(
            prompt_of("Count from one to fifty."),
            sampling=Sampling(max_tokens=60, temperature=1.5, seed=1),
            constraint=Constraint(json_schema={"type": "string", "minLength": 100}),
        )
        async with aclosing(output):
            async for _ in output:
                seen.append(time.monotonic())

    async def read_long() -> None:
        await cria.score(long, ["yes"])
        read.append(time.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await anyio.sleep(0.05)
        tasks.start_soon(read_long)
    assert sum(at < read[0] for at in seen) >= 15


async def test_one_that_is_cancelled_leaves_the_others_alone(cria):
    expected, _ = await answer(cria, prompt_of(QUESTIONS[2]), max_tokens=20)
    got: list[str] = []

    async def cancelled() -> None:
        with anyio.move_on_after(0.15):
            await answer(cria, prompt_of("Tell a long story."), max_tokens=400)

    async def kept() -> None:
        got.append((await answer(cria, prompt_of(QUESTIONS[2]), max_tokens=20))[0])

    async with anyio.create_task_group() as tasks:
        for task in (cancelled, kept, cancelled):
            tasks.start_soon(task)
    assert got == [expected]


async def test_what_is_guessed_from_the_prompt_changes_nothing_but_the_number_of_passes(
    cria, monkeypatch
):
    text = "Order 7781 for Ms Ngozi Adeyemi-Blackwood ships on 14 March from Rotterdam, dock 9."
    messages = [
        SystemMessage(text="Repeat what the user says."),
        UserMessage(content=text),
    ]
    prompt = render_prompt(messages)
    said = prompt.__class__((*prompt.segments, Text(text[:20])))  # in the middle of repeating it
    passes: list[int] = []
    forward = cria._model.scheduler._engine.forward

    def counted(steps):
        passes.append(sum(len(step.ids) for step in steps))
        return forward(steps)

    monkeypatch.setattr(cria._model.scheduler._engine, "forward", counted)
    for sampling in ({}, {"temperature": 0.8, "seed": 3}):
        passes.clear()
        guessed, finish = await answer(cria, said, max_tokens=30, **sampling)
        with_guesses = len(passes)
        with monkeypatch.context() as patch:
            patch.setattr(Lookup, "guess", lambda self, room: [])
            passes.clear()
            plain, _ = await answer(cria, said, max_tokens=30, **sampling)
        assert guessed == plain
        if not sampling:
            assert with_guesses < len(passes) == finish.usage.output_tokens


def test_guesses_follow_what_stood_there_and_stop_where_they_fail():
    lookup = Lookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3])
    assert lookup.guess(10) == [4, 5, 6]
    lookup.fared(3, 3)
    lookup.add([4, 5, 6, 7])
    assert lookup.guess(10) == [8, 9, 1, 2, 3]
    assert lookup.guess(2) == [8, 9]
    assert lookup.guess(1) == []
    lookup.fared(5, 0)
    assert lookup.guess(10) == []  # a pause
    lookup.add([8, 9, 1, 2])
    assert lookup.guess(10) == [3, 4]


async def test_agents_of_one_process_share_the_weights_and_the_computed_prompts(cria):
    other = await open_runtime("cria")
    assert other._model is cria._model
    prompt = prompt_of("Name a tree.", system="Be as brief as a telegram.")
    await answer(cria, prompt, max_tokens=2)
    _, finish = await answer(other, prompt, max_tokens=2)
    assert finish.usage.cached_tokens == finish.usage.prompt_tokens - 1
    await other.aclose()


class Slow:
    """An engine that never ends a pass before it is let, over the real one."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.gate = threading.Event()
        self.broken = False

    def __getattr__(self, name: str):
        return getattr(self.engine, name)

    def forward(self, steps):
        self.gate.wait(30)
        if self.broken:
            raise RuntimeError("out of memory")
        return self.engine.forward(steps)


async def scheduler_of(cria, **options) -> tuple[Scheduler, Slow]:
    from transformers import AutoConfig

    from corral.model_runtime.local.loading import load_llama

    folder = await ensure_merged("cria")
    slow = Slow(load_llama(folder, AutoConfig.from_pretrained(folder), name="cria"))
    return Scheduler(lambda: slow, name="cria", cache_bytes=10**8, **options), slow


def job(ended: list, **given) -> Job:
    def hear(item) -> bool:
        if isinstance(item, Ended):
            ended.append(item)
        return True

    ids = [1, 5, 6, 7]
    plain = {"reader": Draw(Sampling()), "limit": 3}
    return Job(ids=ids, keys=ids, listener=hear, **(plain | given))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_queue_that_is_full_refuses_and_says_so(cria):
    scheduler, slow = await scheduler_of(cria, most_running=1, most_waiting=2)
    ended: list[Ended] = []
    scheduler.submit(job(ended))
    wait_for(lambda: not scheduler._waiting)
    for _ in range(2):
        scheduler.submit(job(ended))
    with pytest.raises(ModelBusy, match="1 requests are running and 2 wait"):
        scheduler.submit(job(ended))
    slow.gate.set()
    wait_for(lambda: len(ended) == 3)
    assert all(end.reason == "max_tokens" for end in ended)
    scheduler.stop()
    with pytest.raises(ModelError, match="closed"):
        scheduler.submit(job(ended))


async def test_a_pass_that_fails_fails_its_jobs_and_the_next_one_is_right(cria):
    scheduler, slow = await scheduler_of(cria)
    slow.gate.set()
    slow.broken = True
    ended: list[Ended] = []
    for _ in range(2):
        scheduler.submit(job(ended))
    wait_for(lambda: len(ended) == 2)
    for end in ended:
        assert isinstance(end.error, ModelError) and "out of memory" in str(end.error)
    slow.broken = False
    scheduler.submit(job(ended))
    wait_for(lambda: len(ended) == 3)
    assert ended[2].error is None and ended[2].written == 3
    scheduler.stop()


async def test_a_reader_that_fails_takes_nobody_with_it(cria):
    scheduler, slow = await scheduler_of(cria)

    def broken(logits):
        raise ModelError("The output left its grammar.")

    ended: list[Ended] = []
    scheduler.submit(job(ended, reader=broken))
    good: list[Ended] = []
    scheduler.submit(job(good))
    slow.gate.set()
    wait_for(lambda: ended and good)
    assert "grammar" in str(ended[0].error)
    assert good[0].error is None
    scheduler.stop()


async def test_an_idle_model_is_let_go_and_comes_back_by_itself(cria):
    loads = []
    _, slow = await scheduler_of(cria)
    slow.gate.set()

    def load():
        loads.append(1)
        return slow

    scheduler = Scheduler(load, name="cria", cache_bytes=10**8, keep_alive=0.1)
    ended: list[Ended] = []
    scheduler.submit(job(ended))
    wait_for(lambda: ended and not scheduler.loaded)
    scheduler.submit(job(ended))
    wait_for(lambda: len(ended) == 2)
    assert len(loads) == 2
    scheduler.stop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("precision=int4", "precision is 'int4'. It can be: int8"),
        ("keep_alive=soon", "Write a time such as 30s"),
        ("cache_mb=lots", "whole number above zero"),
        ("precison=int8", "Did you mean 'precision'"),
    ],
)
async def test_options_that_are_none_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        await open_runtime(f"cria?{options}")


async def test_a_model_is_unloaded_when_nobody_uses_it_and_options_are_kept(tmp_path: Path):
    runtime = await open_runtime("cria?precision=bf16&keep_alive=90s&cache_mb=64")
    scheduler = runtime._model.scheduler
    assert scheduler.keep_alive == 90
    assert scheduler.cache_bytes == 64 * 2**20
    assert "bf16" in runtime.summary
    await answer(runtime, prompt_of("Hi"), max_tokens=2)
    await runtime.aclose()
    wait_for(lambda: not scheduler.loaded)


async def test_a_runtime_that_nobody_closed_is_released_wherever_it_is_collected(tmp_path: Path):
    tiny_llama.make(
        tmp_path / "Llama-3.2-1B", tokenizer=(await ensure_merged("cria")) / "tokenizer.json"
    )
    model = f"transformers:{tmp_path}/Llama-3.2-1B?precision=fp32"
    runtimes = [await open_runtime(model)]
    scheduler = runtimes[0]._model.scheduler

    def collect() -> None:
        with sharing._lock:  # as when the collector runs while somebody else's model is looked up
            runtimes.clear()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert not scheduler.loaded


async def test_a_runtime_closes_while_another_model_loads(tmp_path: Path, monkeypatch):
    """The loader waits for whoever is told of its progress, so that one may wait for nothing."""
    tokenizer = (await ensure_merged("cria")) / "tokenizer.json"
    monkeypatch.setenv("CORRAL_CACHE", str(tmp_path / "cache"))
    for name in ("Llama-3.2-1B", "Llama-3.2-3B"):
        tiny_llama.make(tmp_path / name, tokenizer=tokenizer)
    closing = await open_runtime(f"transformers:{tmp_path}/Llama-3.2-1B?precision=fp32")
    closed: list[bool] = []

    def progress(what: str, done: int, steps: int | None) -> None:
        if not closed:
            # From the side, so that one who waits is seen to wait.
            thread = threading.Thread(target=anyio.run, args=[closing.aclose])
            thread.start()
            thread.join(20)
            closed.append(not thread.is_alive())

    model = f"transformers:{tmp_path}/Llama-3.2-3B?precision=int8"
    loaded = await open_runtime(model, progress=progress)
    await loaded.aclose()
    assert closed == [True]


async def test_hundreds_of_turns_with_cancellations_leave_the_memory_where_it_was(cria):
    """The whole run, of 10,000 turns, is in benchmarks/local_runtime.py."""
    import resource

    async def turn(at: int) -> None:
        prompt = prompt_of(f"{QUESTIONS[at % 8]} ({at % 40})")
        with anyio.move_on_after(0.02 if at % 3 == 0 else 60):
            await answer(cria, prompt, max_tokens=3)

    async def turns(n: int) -> None:
        limiter = anyio.CapacityLimiter(6)

        async def limited(at: int) -> None:
            async with limiter:
                await turn(at)

        async with anyio.create_task_group() as tasks:
            for at in range(n):
                tasks.start_soon(limited, at)

    await turns(120)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await turns(240)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024  # KiB; 240 caches that nobody lets go would take 2 GiB
    scheduler = cria._model.scheduler
    wait_for(lambda: not scheduler._running)
    assert scheduler._prefixes.nbytes <= scheduler.cache_bytes
