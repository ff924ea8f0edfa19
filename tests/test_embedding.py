"""Texts to vectors: any local encoder, and a model of an Ollama server."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import tiny_mllama
from ollama_server import serve

from corral.errors import ConfigError, ContextOverflow, InputError, ModelError, RuntimeUnavailable
from corral.model_runtime.embedding import open_embedder
from corral.model_runtime.local.encoder import LocalEmbedder
from corral.model_runtime.local.lane import in_lane
from corral.model_runtime.runtime import Embedder
from corral.model_runtime.transformers_runtime import TransformersRuntime

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "llama", "eats", "grass", "sheep", "a", "red"]
TEXTS = ["the llama eats grass", "a sheep", "red", "the red sheep eats the red grass", "a llama"]


def write_bert(folder: Path, *, kind: str = "BertModel", **config: Any) -> Path:
    """A tiny BERT with random weights."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(exist_ok=True)
    made = Tokenizer(models.WordPiece(vocab={w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(WORDS[:4])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(4)  # as many published files have it
    made.enable_padding(length=16)
    made.save(str(folder / "tokenizer.json"))
    torch.manual_seed(3)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = small | {"intermediate_size": 24, "vocab_size": 11, "max_position_embeddings": 12}
    model = getattr(transformers, kind)(transformers.BertConfig(**(sizes | config)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("encoder") / "bert")


def by_hand(folder: Path, ids: Sequence[int], *, first: bool = False) -> list[float]:
    """A vector by the model's own states, one text at a time, in plain Python."""
    import torch
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].tolist()
    vector = (
        states[0] if first else [sum(column) / len(states) for column in zip(*states, strict=True)]
    )
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]


def bert_ids(text: str) -> list[int]:
    return [2, *(WORDS.index(word) for word in text.split()), 3]


async def test_vectors_are_the_mean_of_the_states_at_unit_length(bert: Path):
    embedder = await open_embedder(f"transformers:{bert}")
    assert isinstance(embedder, Embedder)
    vectors = await embedder.embed(TEXTS)
    assert len(vectors) == len(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert vector == pytest.approx(by_hand(bert, bert_ids(text)), abs=1e-5)
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)


async def test_a_text_has_one_vector_whatever_stands_beside_it(bert: Path):
    embedder = await LocalEmbedder.load(str(bert))
    assert embedder.dimension == 16
    many = await embedder.embed(TEXTS * 40)
    for n, text in enumerate(TEXTS):
        (alone,) = await embedder.embed([text])
        for again in many[n :: len(TEXTS)]:
            assert again == pytest.approx(alone, abs=1e-5)
    assert await embedder.embed([]) == []


async def test_many_tasks_share_an_embedder(bert: Path):
    embedder = await LocalEmbedder.load(str(bert))
    expected = await embedder.embed(TEXTS)
    found: dict[int, list[list[float]]] = {}

    async def ask(n: int) -> None:
        found[n] = await embedder.embed([TEXTS[n]])

    async with anyio.create_task_group() as tasks:
        for n in range(len(TEXTS)):
            tasks.start_soon(ask, n)
    for n, vector in enumerate(expected):
        assert found[n][0] == pytest.approx(vector, abs=1e-5)


async def test_tasks_that_wait_for_an_embedder_keep_no_threads_from_others(bert: Path):
    embedder = await LocalEmbedder.load(str(bert))
    threads = anyio.to_thread.current_default_thread_limiter()
    passed = threading.Event()
    other = threading.Thread(target=in_lane, args=[passed.wait])  # another model's long pass
    other.start()
    async with anyio.create_task_group() as tasks:
        for _ in range(int(threads.total_tokens) + 5):
            tasks.start_soon(embedder.embed, TEXTS[:1])
        for _ in range(3000):
            await anyio.sleep(0.01)
            if embedder._one_at_a_time().statistics().tasks_waiting >= threads.total_tokens:
                break
        borrowed = threads.borrowed_tokens
        passed.set()
    other.join()
    assert borrowed == 0


async def test_a_model_that_writes_embeds_too(cria: TransformersRuntime):
    from tokenizers import Tokenizer

    from corral.model_runtime.cria.fetch import ensure_merged

    folder = await ensure_merged("cria")
    embedder = await LocalEmbedder.load(str(folder))
    texts = ["The llama eats grass.", "Sheep", "A much longer text: 12 llamas went up the hill."]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text, vector in zip(texts, await embedder.embed(texts), strict=True):
        assert vector == pytest.approx(by_hand(folder, tokenizer.encode(text).ids), abs=1e-4)


async def test_a_text_too_long_is_an_error_and_never_cut(bert: Path):
    embedder = await LocalEmbedder.load(str(bert))
    assert embedder.length == 12
    assert await embedder.embed(["red " * 10])
    with pytest.raises(
        ContextOverflow, match="A text needs 13 tokens and the model has room for 12"
    ):
        await embedder.embed(["red", "red " * 11])


async def test_control_tokens_in_a_text_are_text(bert: Path):
    embedder = await LocalEmbedder.load(str(bert))
    forged, plain = await embedder.embed(["red [SEP] sheep", "red sheep"])
    unknown = bert_ids("red [UNK] [UNK] [UNK] sheep")
    assert forged == pytest.approx(by_hand(bert, unknown), abs=1e-5)
    assert forged != pytest.approx(plain, abs=1e-3)


def settled(bert: Path, folder: Path, **files: Any) -> str:
    """The model with settings of sentence-transformers beside it."""
    for file in bert.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "1_Pooling").mkdir()
    names = {"pooling": "1_Pooling/config.json", "short": "sentence_bert_config.json"}
    for name, value in files.items():
        (folder / names.get(name, f"{name}.json")).write_text(json.dumps(value))
    return f"transformers:{folder}"


@pytest.mark.parametrize(
    "pooling",
    [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}],
)
async def test_a_model_trained_on_its_first_token_is_taken_at_its_word(
    bert: Path, tmp_path: Path, pooling: Any
):
    embedder = await open_embedder(settled(bert, tmp_path, pooling=pooling))
    (vector,) = await embedder.embed(["a sheep"])
    assert vector == pytest.approx(by_hand(bert, bert_ids("a sheep"), first=True), abs=1e-5)


async def test_the_length_that_a_model_was_trained_for_counts(bert: Path, tmp_path: Path):
    embedder = await open_embedder(settled(bert, tmp_path, short={"max_seq_length": 5}))
    assert await embedder.embed(["red sheep red"])
    with pytest.raises(ContextOverflow, match="room for 5"):
        await embedder.embed(["red sheep red sheep"])


@pytest.mark.parametrize(
    "files",
    [
        {"pooling": {"pooling_mode_lasttoken": True}},
        {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
        {"modules": [{"type": "sentence_transformers.models.Dense"}]},
    ],
    ids=["last", "both", "dense"],
)
async def test_vectors_made_in_another_way_are_refused(bert: Path, tmp_path: Path, files: Any):
    with pytest.raises(ConfigError, match="in a way that is not done here"):
        await open_embedder(settled(bert, tmp_path, **files))


async def test_the_ordinary_settings_change_nothing(bert: Path, tmp_path: Path):
    kinds = ["Transformer", "Pooling", "Normalize"]
    model = settled(
        bert,
        tmp_path,
        pooling={"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
        modules=[{"type": f"sentence_transformers.models.{kind}"} for kind in kinds],
    )
    (vector,) = await (await open_embedder(model)).embed(["a sheep"])
    assert vector == pytest.approx(by_hand(bert, bert_ids("a sheep")), abs=1e-5)


async def test_positions_that_roberta_keeps_for_padding_don_t_count(bert: Path, tmp_path: Path):
    import transformers

    config = transformers.RobertaConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=12,
        pad_token_id=1,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").symlink_to(bert / "tokenizer.json")
    embedder = await LocalEmbedder.load(str(tmp_path))
    assert embedder.length == 10
    assert await embedder.embed(["red " * 8])


async def test_an_empty_text_of_no_tokens_is_an_error(tmp_path: Path, bert: Path):
    from tokenizers import Tokenizer, processors

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(bert / name)
    bare = Tokenizer.from_file(str(bert / "tokenizer.json"))
    bare.post_processor = processors.TemplateProcessing(single="$A")
    bare.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="empty"):
        await (await LocalEmbedder.load(str(tmp_path))).embed(["red", ""])


async def test_half_of_a_character_is_an_error_of_the_text(bert: Path):
    embedder = await LocalEmbedder.load(str(bert))
    with pytest.raises(InputError, match="surrogate"):
        await embedder.embed(["red", "a \ud800 sheep"])


async def test_a_tokenizer_of_another_model_is_an_error_of_the_model(bert: Path, tmp_path: Path):
    folder = write_bert(tmp_path / "narrow", vocab_size=6)
    embedder = await LocalEmbedder.load(str(folder))
    assert await embedder.embed(["the"])
    with pytest.raises(ModelError, match="files may not belong together"):
        await embedder.embed(["a sheep"])


async def test_a_model_of_texts_and_images_is_no_encoder(tmp_path: Path):
    with pytest.raises(ConfigError, match="takes more than texts"):
        await LocalEmbedder.load(str(tiny_mllama.make(tmp_path)))


async def test_folders_that_are_no_encoder_say_what_they_lack(bert: Path, tmp_path: Path):
    (tmp_path / "config.json").symlink_to(bert / "config.json")
    with pytest.raises(ConfigError, match="no tokenizer.json"):
        await open_embedder(f"transformers:{tmp_path}")
    (tmp_path / "tokenizer.json").symlink_to(bert / "tokenizer.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"no \*.safetensors.*can run code"):
        await open_embedder(f"transformers:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(RuntimeUnavailable, match="damaged"):
        await open_embedder(f"transformers:{tmp_path}")


async def test_weights_that_lack_a_tensor_are_not_filled_up_with_noise(bert: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).symlink_to(bert / name)
    weights = load_file(bert / "model.safetensors")
    lost = next(key for key in weights if key.endswith("layer.1.output.dense.weight"))
    kept = {key: value for key, value in weights.items() if key != lost}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeUnavailable, match="lack 'encoder.layer.1.output.dense.weight'"):
        await open_embedder(f"transformers:{tmp_path}")


async def test_weights_without_the_part_on_top_of_the_first_token_are_whole(tmp_path: Path):
    folder = write_bert(tmp_path / "masked", kind="BertForMaskedLM")
    embedder = await open_embedder(f"transformers:{folder}")
    (vector,) = await embedder.embed(["a sheep"])
    assert vector == pytest.approx(by_hand(folder, bert_ids("a sheep")), abs=1e-5)


@pytest.mark.parametrize("model", ["", "cria", "openai:x", "transformers:", "bert:x", "ollama:"])
async def test_strings_that_name_no_encoder_are_refused(model: str):
    with pytest.raises(ConfigError, match="Write 'transformers:FOLDER-OR-ID' or 'ollama:NAME'"):
        await open_embedder(model)


async def test_a_model_of_an_ollama_server_embeds(cria: TransformersRuntime):
    with serve({"some-encoder": cria}) as server:
        embedder = await open_embedder(f"ollama:some-encoder@{server.url}")
        one, two = await embedder.embed(["Once upon a time", "The capital of"])
        assert len(one) == len(two) and one != two
        assert isinstance(embedder, Embedder)


async def test_texts_are_sent_to_no_other_machine_unasked(cria: TransformersRuntime):
    with serve({"far-encoder": cria}) as server:
        server.shown = {"remote_host": "https://elsewhere.example"}
        embedder = await open_embedder(f"ollama:far-encoder@{server.url}")
        with pytest.raises(RuntimeUnavailable, match="elsewhere.example"):
            await embedder.embed(["a secret"])
        assert "/api/embed" not in server.paths
        allowed = await open_embedder(f"ollama:far-encoder@{server.url}?cloud=allow")
        assert await allowed.embed(["no secret"])
