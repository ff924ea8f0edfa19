"""Llama 3.2 Vision in this process, on a tiny one with random weights: what it sees, and when."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_mllama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import packed, part, picture
from PIL import Image

from corral.errors import ModelError
from corral.messages import AssistantMessage, ImagePart, Message, TextPart, UserMessage
from corral.model_runtime import open_runtime
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.formats.guard import GUARD_11B_VISION, render_guard
from corral.model_runtime.local.engine import Step
from corral.model_runtime.local.mllama import MllamaCache, MllamaEngine
from corral.model_runtime.local.mllama_loading import load_mllama
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Finish, Piece, Sampling
from corral.model_runtime.tokenizer import LlamaTokenizer

TOKENS = 6


CAT, DOG = picture(1, 60, 30), picture(2, 20, 90)


@dataclass
class Tiny:
    folder: Path
    engine: MllamaEngine
    tokenizer: LlamaTokenizer
    processor: Any
    model: Any

    def generate(self, text: str, images: Sequence[Image.Image] = ()) -> list[int]:
        """What transformers itself writes, greedily, after its own processor's reading."""
        inputs = self.processor(
            text=text, images=list(images) or None, add_special_tokens=False, return_tensors="pt"
        )
        with leading_text_sees_nothing(self.model):
            out = self.model.generate(
                **inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=tiny_mllama.PAD
            )
        return out[0, inputs["input_ids"].shape[1] :].tolist()

    def ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def read(
        self, cache: MllamaCache, ids: Sequence[int], images: Any = (), chunk: int = 1000
    ) -> Any:
        """Bring the cache up to `ids`; the last one's logits."""
        logits: Any = None
        for begin in range(cache.length, len(ids), chunk):
            step = Step(cache=cache, ids=ids[begin : begin + chunk], wanted=1, images=images)
            (logits,) = self.engine.forward([step])
        return logits[-1]

    def greedy(self, ids: Sequence[int], images: Sequence[ImagePart] = (), **how: Any) -> list[int]:
        cache = how.pop("cache", None) or self.engine.new_cache()
        logits = self.read(cache, ids, self.engine.prepare(images), **how)
        written: list[int] = []
        while len(written) < TOKENS:
            written.append(int(logits.argmax()))
            logits = self.engine.forward([Step(cache=cache, ids=written[-1:], wanted=1)])[0][-1]
        return written


@contextmanager
def leading_text_sees_nothing(model: Any) -> Iterator[None]:
    """Have transformers' layers pass by tokens in front of the first image, as Meta's code does.

    Up to 5.23 they take in every image instead (transformers' issue 39379). A layer that passes
    them by already is not changed.
    """
    import torch

    def passed_by(_layer: Any, taken: Any, named: Any, given: Any) -> Any:
        seeing = named["full_text_row_masked_out_mask"]
        return given if seeing is None else torch.where(seeing[:, 0] == 0, taken[0], given)

    text = model.model.language_model
    hooks = [
        text.layers[i].register_forward_hook(passed_by, with_kwargs=True)
        for i in text.cross_attention_layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllama.make(tmp_path_factory.mktemp("x") / "Llama-3.2-11B-Vision-Instruct")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Tiny:
    import transformers
    from tokenizers import Tokenizer

    model: Any = transformers.MllamaForConditionalGeneration.from_pretrained(folder)
    return Tiny(
        folder=folder,
        engine=load_mllama(folder, name="tiny", device="cpu", precision="fp32"),
        tokenizer=LlamaTokenizer(
            Tokenizer.from_file(str(folder / "tokenizer.json")), source="tiny"
        ),
        processor=transformers.MllamaProcessor(
            transformers.MllamaImageProcessorPil.from_pretrained(folder),
            transformers.PreTrainedTokenizerFast.from_pretrained(folder),
        ),
        model=model.eval(),
    )


# -- prompts


def asked(*content: Any) -> UserMessage:
    return UserMessage(
        content=tuple(TextPart(text=c) if isinstance(c, str) else part(c) for c in content)
    )


ONE_TURN = [asked(CAT, "What is this?")]
TWO_TURNS: list[Message] = [
    asked(CAT, "What is this?"),
    AssistantMessage(text="A cat."),
    asked("And ", DOG, "this?"),
]


def rendered(messages: Sequence[Message]) -> Prompt:
    return render_prompt(messages, format="vision")


def test_an_image_stands_in_the_prompt_where_it_stood_in_the_message(tiny: Tiny):
    assert str(rendered(ONE_TURN)) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        "<|image|>What is this?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert str(rendered(TWO_TURNS)) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        "<|image|>What is this?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "A cat.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "And <|image|>this?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert rendered(TWO_TURNS).images == (part(CAT), part(DOG))


@pytest.mark.parametrize("messages", [ONE_TURN, TWO_TURNS], ids=["one-turn", "two-turns"])
def test_the_prompt_has_the_ids_that_the_models_own_processor_gives(
    tiny: Tiny, messages: list[Message]
):
    prompt = rendered(messages)
    ids = prompt.encode(tiny.tokenizer)
    assert ids == tiny.ids(str(prompt))
    assert ids.count(tiny.engine.image_token) == len(prompt.images)


def test_no_text_of_a_user_becomes_an_image(tiny: Tiny):
    prompt = rendered([UserMessage(content="Look: <|image|>")])
    assert tiny.engine.image_token not in prompt.encode(tiny.tokenizer)


# -- pixels


@pytest.mark.parametrize(
    "image",
    [
        picture(3, 28, 28),
        picture(4, 5, 3),
        picture(5, 400, 30),
        picture(6, 30, 400),
        picture(7, 300, 290),
        picture(8, 50, 50, "RGBA"),
        picture(9, 50, 40, "L"),
        picture(10, 50, 40, "P"),
        picture(11, 50, 40, "LA"),
    ],
    ids=["tile", "tiny", "wide", "tall", "large", "clear", "grey", "palette", "grey-clear"],
)
def test_an_image_is_cut_into_the_very_tiles_of_the_models_own_processor(
    tiny: Tiny, image: Image.Image
):
    (made,) = tiny.engine.prepare([part(image)])
    own = tiny.processor.image_processor(image, return_tensors="pt")
    assert made.pixels.equal(own["pixel_values"])
    assert made.aspect_ratio_ids.equal(own["aspect_ratio_ids"])
    assert made.aspect_ratio_mask.equal(own["aspect_ratio_mask"])
    assert made.tiles == own["num_tiles"][0][0]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_an_image_is_turned_as_the_camera_says(tiny: Tiny, kind: str):
    upright = picture(12, 64, 32).resize((128, 64))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    upright.transpose(Image.Transpose.ROTATE_90).save(file, kind, exif=exif, quality=95)
    (turned,) = tiny.engine.prepare([part(file.getvalue())])
    (plain,) = tiny.engine.prepare([part(upright)])
    assert turned.aspect_ratio_ids.equal(plain.aspect_ratio_ids)
    assert float((turned.pixels - plain.pixels).abs().mean()) < 0.3


def test_of_a_moving_image_the_first_frame_is_seen(tiny: Tiny):
    moving = packed(CAT, "WEBP", save_all=True, append_images=[picture(13, 60, 30)], lossless=True)
    (first,) = tiny.engine.prepare([part(moving)])
    (still,) = tiny.engine.prepare([part(CAT)])
    assert first.pixels.equal(still.pixels)


def test_grey_in_sixteen_bits_is_not_cut_off_at_white(tiny: Tiny):
    import numpy

    ramp = (numpy.arange(60 * 30).reshape(30, 60) * 36).astype(numpy.uint16)
    (deep,) = tiny.engine.prepare([part(Image.fromarray(ramp))])
    (shallow,) = tiny.engine.prepare([part(Image.fromarray((ramp // 256).astype(numpy.uint8)))])
    assert float((deep.pixels - shallow.pixels).abs().max()) < 0.05


# -- what is written

TEXTS = {
    "image-first": ("<|image|><|begin_of_text|>What is this?", [CAT]),
    "chat": (str(rendered(ONE_TURN)), [CAT]),
    "two-turns": (str(rendered(TWO_TURNS)), [CAT, DOG]),
    "two-together": (
        "<|begin_of_text|>See <|image|><|image|>both, then <|image|>",
        [CAT, DOG, CAT],
    ),
    "text-only": ("<|begin_of_text|>Just a question, without an image.", []),
}


@pytest.mark.parametrize("name", TEXTS)
def test_it_writes_what_transformers_writes(tiny: Tiny, name: str):
    text, images = TEXTS[name]
    expected = tiny.generate(text, images)
    ids, parts = tiny.ids(text), [part(image) for image in images]
    assert tiny.greedy(ids, parts) == expected
    assert tiny.greedy(ids, parts, chunk=3) == expected
    assert tiny.greedy(ids, parts, chunk=1) == expected


def test_it_writes_what_unchanged_transformers_writes_where_an_image_comes_first(tiny: Tiny):
    text = "<|image|><|begin_of_text|>What is this?<|image|> And that?"
    inputs = tiny.processor(
        text=text, images=[CAT, DOG], add_special_tokens=False, return_tensors="pt"
    )
    out = tiny.model.generate(
        **inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=tiny_mllama.PAD
    )
    ids = inputs["input_ids"][0].tolist()
    assert tiny.greedy(ids, [part(CAT), part(DOG)]) == out[0, len(ids) :].tolist()


def test_the_image_decides_what_is_written(tiny: Tiny):
    ids = tiny.ids(TEXTS["chat"][0])
    cat, dog = (
        tiny.read(tiny.engine.new_cache(), ids, tiny.engine.prepare([part(image)]))
        for image in (CAT, DOG)
    )
    assert not cat.allclose(dog, atol=0.1)


def test_a_conversation_goes_on_where_its_cache_ends(tiny: Tiny):
    one, two = (prompt.encode(tiny.tokenizer) for prompt in map(rendered, (ONE_TURN, TWO_TURNS)))
    cache = tiny.engine.new_cache()
    tiny.greedy(one, [part(CAT)], cache=cache)
    assert cache.length == len(one) + TOKENS
    cache.crop(len(one))  # what it wrote was another answer than the one that was kept
    expected = tiny.greedy(two, [part(CAT), part(DOG)])
    assert tiny.greedy(two, [part(CAT), part(DOG)], cache=cache) == expected


def test_forks_of_a_cache_go_their_own_ways(tiny: Tiny):
    ids, images = tiny.ids(TEXTS["two-turns"][0]), [part(CAT), part(DOG)]
    expected = tiny.greedy(ids, images)
    cache = tiny.engine.new_cache()
    tiny.read(cache, ids[:-1], tiny.engine.prepare(images))
    forks = [cache.fork(length) for length in (len(ids) - 1, 12, 5, 3)]
    assert [fork.length for fork in forks] == [len(ids) - 1, 12, 5, 3]
    for fork in forks:
        assert tiny.greedy(ids, images, cache=fork) == expected
    assert cache.length == len(ids) - 1
    assert tiny.greedy(ids, images, cache=cache) == expected


def test_a_cache_cut_in_front_of_an_image_takes_another_one(tiny: Tiny):
    ids = tiny.ids(TEXTS["chat"][0])
    cache = tiny.engine.new_cache()
    tiny.greedy(ids, [part(CAT)], cache=cache)
    held = cache.nbytes
    cache.crop(ids.index(tiny.engine.image_token))
    assert tiny.greedy(ids, [part(DOG)], cache=cache) == tiny.greedy(ids, [part(DOG)])
    cache.crop(0)
    assert (cache.length, cache.nbytes) == (0, 0) and held > 0
    assert tiny.greedy(ids, [part(DOG)], cache=cache.fork(0)) == tiny.greedy(ids, [part(DOG)])
    assert tiny.greedy(ids, [part(CAT)], cache=cache) == tiny.greedy(ids, [part(CAT)])


def test_a_cache_counts_what_it_holds_of_images_once_and_whole(tiny: Tiny):
    image = tiny.engine.image_token

    def held(ids: list[int]) -> int:
        cache = tiny.engine.new_cache()
        tiny.read(cache, ids, tiny.engine.prepare([part(CAT)] * ids.count(image)))
        return cache.nbytes - without(len(ids))

    def without(length: int) -> int:
        cache = tiny.engine.new_cache()
        tiny.read(cache, [65] * length)
        return cache.nbytes

    one = held([image, 65])
    assert one > 0
    assert held([image, 65, image]) == 2 * one  # each is looked at by itself, where it lies
    assert held([image, image, 65]) == 4 * one  # both are looked at, in a copy beside them


def test_a_prompt_before_the_image_is_the_same_with_any_image_and_none(tiny: Tiny):
    before = tiny.ids("<|begin_of_text|>You are helpful. Look at this:")
    image = [tiny.engine.image_token]
    text = tiny.engine.new_cache()
    tiny.read(text, before)
    expected = tiny.greedy([*before, *image], [part(CAT)])
    assert tiny.greedy([*before, *image], [part(CAT)], cache=text) == expected


def test_steps_of_one_pass_don_t_touch_each_other(tiny: Tiny):
    cases = [TEXTS[name] for name in ("chat", "text-only", "two-turns")]

    def steps() -> list[Step]:
        return [
            Step(
                cache=tiny.engine.new_cache(),
                ids=tiny.ids(text),
                wanted=2,
                images=tiny.engine.prepare([part(image) for image in images]),
            )
            for text, images in cases
        ]

    together = tiny.engine.forward(steps())
    for step, rows in zip(steps(), together, strict=True):
        (alone,) = tiny.engine.forward([step])
        assert rows.shape == (2, tiny.engine.vocabulary)
        assert rows.equal(alone)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(layout=st.lists(st.booleans(), min_size=1, max_size=12), chunk=st.integers(1, 5))
def test_a_token_looks_at_the_images_that_the_processors_mask_shows_it(
    tiny: Tiny, layout: list[bool], chunk: int
):
    from transformers.models.mllama import processing_mllama as own

    ids = [tiny.engine.image_token if is_image else at for at, is_image in enumerate(layout)]
    count = sum(layout)
    images = tiny.engine.prepare([part(CAT), part(DOG)] * 6)[:count]
    cache = tiny.engine.new_cache()
    mask: Any = None
    if count:
        mask = own.convert_sparse_cross_attention_mask_to_dense(
            [own.get_cross_attention_token_mask(ids, tiny.engine.image_token)],
            [[image.tiles for image in images]],
            4,
            len(ids),
        )
    for begin in range(0, len(ids), chunk):
        tiny.read(cache, ids[: begin + chunk], images)
        row = cache.length - 1
        shown = cache.states.layers[1].keys
        seen = [n for n in range(count) if mask[0, row, n].any()]
        for n in seen:
            assert mask[0, row, n].sum() == images[n].tiles
        if not seen:
            assert shown is None
            continue
        keys = [cache.seen[n].keys[0] for n in seen]
        assert shown.shape[-2] == sum(each.shape[-2] for each in keys)
        begin_at = 0
        for each in keys:
            assert shown[..., begin_at : begin_at + each.shape[-2], :].equal(each)
            begin_at += each.shape[-2]


@pytest.fixture
def kept(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Corral's for what it can make again; where converted weights go."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CORRAL_CACHE", str(cache))
    return cache / "int8"


@pytest.mark.usefixtures("kept")
def test_in_eight_bits_it_writes_the_same_in_one_piece_and_in_many(tiny: Tiny, folder: Path):
    engine = load_mllama(folder, name="tiny", device="cpu", precision="int8")
    small = Tiny(folder, engine, tiny.tokenizer, tiny.processor, tiny.model)
    ids, images = tiny.ids(TEXTS["two-turns"][0]), [part(CAT), part(DOG)]
    assert small.greedy(ids, images) == small.greedy(ids, images, chunk=4)
    assert engine.nbytes < tiny.engine.nbytes
    near = small.read(engine.new_cache(), ids, engine.prepare(images))
    exact = tiny.read(tiny.engine.new_cache(), ids, tiny.engine.prepare(images))
    assert float((near - exact).norm()) < 0.2 * float(exact.norm())


def test_converted_weights_are_kept_and_made_anew_when_the_files_change(
    tiny: Tiny, tmp_path: Path, kept: Path
):
    ids, told = tiny.ids(TEXTS["chat"][0]), list[tuple[int, int]]()

    def answer() -> Any:
        told.clear()
        engine = load_mllama(
            tmp_path,
            name="tiny",
            device="cpu",
            precision="int8",
            tell=lambda done, steps: told.append((done, steps)),
        )
        step = Step(
            cache=engine.new_cache(), ids=ids, wanted=len(ids), images=engine.prepare([part(CAT)])
        )
        return engine.forward([step])[0]

    tiny_mllama.make(tmp_path, seed=1)
    first = answer()
    products = 5 * 7 + 1  # four of the attention and three behind it a layer, and the head
    assert told == [(done, products) for done in range(1, products + 1)]
    (file,) = kept.iterdir()
    assert answer().equal(first)
    assert told == []  # nothing was converted

    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:200], b"", whole.replace(b"lm_head", b"my_head")):
        file.write_bytes(damaged)
        assert answer().equal(first)
        assert told
    assert file.read_bytes() == whole
    numbered = load_mllama(tmp_path, name="tiny", device="cpu:0", precision="int8")
    assert numbered.nbytes == load_mllama(tmp_path, name="tiny", precision="int8").nbytes

    tiny_mllama.make(tmp_path, seed=2)
    assert not answer().equal(first)
    assert told


async def test_an_agent_is_answered_about_images_turn_after_turn(folder: Path, tiny: Tiny):
    async def answers(*turns: Sequence[Message]) -> list[tuple[str, int]]:
        runtime = await open_runtime(f"transformers:{folder}?device=cpu&precision=fp32")
        found: list[tuple[str, int]] = []
        for messages in turns:
            sampling = Sampling(max_tokens=TOKENS)
            stream = runtime.generate(rendered(messages), sampling=sampling)
            *pieces, finish = [piece async for piece in stream]
            assert isinstance(finish, Finish)
            text = "".join(piece.text for piece in pieces if isinstance(piece, Piece))
            found.append((text, finish.usage.cached_tokens))
        await runtime.aclose()
        return found

    other = [asked(DOG, "What is this?")]
    first, again, differs, second = await answers(ONE_TURN, ONE_TURN, other, TWO_TURNS)
    assert first[0] == again[0] and again[1] > first[1] == 0
    before_the_image = rendered(ONE_TURN).encode(tiny.tokenizer).index(tiny.engine.image_token)
    assert differs[1] == before_the_image
    assert second[1] > before_the_image
    assert [second[0], differs[0]] == [
        text for messages in (TWO_TURNS, other) for text, _ in await answers(messages)
    ]


# -- the guard


def test_the_vision_guard_judges_an_image_through_the_same_engine(tiny: Tiny):
    def asks(image: Image.Image | None) -> Prompt:
        return render_guard(
            [("User", "How is this made?")],
            variant=GUARD_11B_VISION,
            image=None if image is None else part(image),
        )

    prompt = asks(CAT)
    assert str(prompt).startswith(
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|> Task: Check if "
    )
    ids = prompt.encode(tiny.tokenizer)
    assert ids == tiny.ids(str(prompt))
    assert tiny.greedy(ids, prompt.images) == tiny.generate(str(prompt), [CAT])
    without = asks(None)
    assert tiny.greedy(without.encode(tiny.tokenizer)) == tiny.generate(str(without))


# -- what goes wrong


async def test_a_prompt_whose_images_don_t_fit_it_fails_alone(folder: Path):
    runtime = await open_runtime(f"transformers:{folder}?device=cpu&precision=fp32")
    whole = rendered(ONE_TURN)
    for images, said in (((), "1 <|image|> tokens and 0"), ((part(CAT),) * 2, "1 .* and 2 images")):
        with pytest.raises(ModelError, match=said.replace("|", r"\|")):
            await runtime.score(Prompt(whole.segments, images=images), ["a"])
    with pytest.raises(ModelError, match="prompt is empty"):
        await runtime.score(Prompt(()), ["a"])
    assert await runtime.score(whole, ["a"])
    await runtime.aclose()


def test_a_token_without_its_image_is_no_guess(tiny: Tiny):
    ids = tiny.ids(TEXTS["two-turns"][0])
    with pytest.raises(ModelError, match="more <|image|> tokens than images"):
        tiny.read(tiny.engine.new_cache(), ids, tiny.engine.prepare([part(CAT)]))


def test_a_cache_of_other_images_is_refused(tiny: Tiny):
    one, two = (tiny.ids(TEXTS[name][0]) for name in ("chat", "two-turns"))
    cache = tiny.engine.new_cache()
    tiny.read(cache, one, tiny.engine.prepare([part(CAT)]))
    with pytest.raises(ModelError, match="not those of its cache"):
        tiny.read(cache, two, tiny.engine.prepare([part(DOG), part(CAT)]))
