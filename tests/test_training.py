"""The trainer: a tree is its conversations computed alone; the assistant's words are learnt."""

import datetime
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from corral.messages import (  # noqa: E402
    AssistantMessage,
    Message,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserMessage,
)
from corral.model_runtime.cria.base import LORA_MAPS  # noqa: E402
from training.lora import LoraLlama, Shape, loss_on_labels  # noqa: E402
from training.train import Trainer  # noqa: E402
from training.trees import Labelled, Packed, branch_of, guard_branch, pack, pack_tree  # noqa: E402

SHAPE = Shape(
    hidden_size=48,
    intermediate_size=96,
    num_attention_heads=6,
    num_key_value_heads=2,
    num_hidden_layers=2,
    rms_norm_eps=1e-5,
    rope_theta=100000.0,
    vocab_size=300,
)


class ByteEncoder:
    """Bytes as tokens, and above them the control tokens in the order of their first use."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def special_id(self, token: str) -> int:
        if token not in self.names:
            self.names.append(token)
        return 256 + self.names.index(token)

    def encode_text(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i) if i < 256 else self.names[i - 256] for i in ids)


@dataclass
class SmallTree:
    system: str
    tools: tuple[ToolSpec, ...]
    date: datetime.date | None
    branches: tuple[tuple[Message, ...], ...]
    format: str = "llama3.2"


@dataclass
class SmallGuardExample:
    conversation: tuple
    verdict: str


def a_tree() -> SmallTree:
    code = ToolSpec(name="code_interpreter", description="Runs Python.", kind="code_interpreter")
    call = ToolCall(id="1", name="code_interpreter", arguments={"code": "print(2 + 3)"})
    return SmallTree(
        system="Be brief. " * 40,  # long enough for several chunks of attention
        tools=(code,),
        date=datetime.date(2024, 9, 4),
        branches=(
            (
                UserMessage(content="2 + 3?"),
                AssistantMessage(calls=(call,)),
                ToolResult(call_id="1", name="code_interpreter", content="5"),
                AssistantMessage(text="It is 5."),
            ),
            (UserMessage(content="Hello"), AssistantMessage(text="Hi.")),
            (UserMessage(content="Thanks a lot"), AssistantMessage(text="Any time.")),
        ),
    )


def random_weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    s = SHAPE
    kv = s.num_key_value_heads * s.head_size
    sizes = {
        "self_attn.q_proj": (s.hidden_size, s.hidden_size),
        "self_attn.k_proj": (kv, s.hidden_size),
        "self_attn.v_proj": (kv, s.hidden_size),
        "self_attn.o_proj": (s.hidden_size, s.hidden_size),
        "mlp.gate_proj": (s.intermediate_size, s.hidden_size),
        "mlp.up_proj": (s.intermediate_size, s.hidden_size),
        "mlp.down_proj": (s.hidden_size, s.intermediate_size),
        "input_layernorm": (s.hidden_size,),
        "post_attention_layernorm": (s.hidden_size,),
    }
    weights = {
        "model.embed_tokens.weight": torch.randn(s.vocab_size, s.hidden_size, generator=generator),
        "model.norm.weight": torch.rand(s.hidden_size, generator=generator) + 0.5,
    }
    for i in range(s.num_hidden_layers):
        for name, size in sizes.items():
            some = torch.randn(*size, generator=generator) / s.hidden_size**0.5
            weights[f"model.layers.{i}.{name}.weight"] = some + (1 if len(size) == 1 else 0)
    return weights


def a_model(*, seed: int = 0, trained: bool = True) -> LoraLlama:
    model = LoraLlama(SHAPE, random_weights(seed), control_ids=[256, 257, 258], rank=4)
    if trained:  # adapters that do something, or nothing would be compared
        with torch.no_grad():
            for parameter in model.adapter().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def merged(model: LoraLlama, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights with the adapter put into them, written out from LoRA's definition."""
    adapter = model.adapter()
    out = dict(weights)
    for i in range(SHAPE.num_hidden_layers):
        for name in LORA_MAPS:
            a, b = adapter[f"layers.{i}.{name}.a"], adapter[f"layers.{i}.{name}.b"]
            key = f"model.layers.{i}.{name}.weight"
            out[key] = weights[key] + model.scale * (b @ a).detach()
    embedding = weights["model.embed_tokens.weight"].clone()
    embedding[[256, 257, 258]] += adapter["delta"].detach()
    out["model.embed_tokens.weight"] = embedding
    return out


def test_a_packed_tree_equals_transformers_on_each_conversation_alone():
    transformers = pytest.importorskip("transformers")
    model = a_model()
    config = transformers.LlamaConfig(
        **{name: getattr(SHAPE, name) for name in SHAPE.__dataclass_fields__},
        tie_word_embeddings=True,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.load_state_dict(merged(model, random_weights(0)), strict=False)
    theirs.tie_weights()

    encoder = ByteEncoder()
    tree = a_tree()
    alone = [branch_of(tree, branch, encoder) for branch in tree.branches]
    packed = pack_tree(tree, encoder)
    assert packed is not None
    assert packed.prefix > 400
    assert len(packed.branches) == 3

    with torch.no_grad():
        got = model(packed)
        want = torch.cat(
            [
                theirs(torch.tensor([b.ids])).logits[0][
                    [i - 1 for i, learn in enumerate(b.learn) if learn]
                ]
                for b in alone
            ]
        )
    assert got.shape == want.shape
    assert float((got - want).abs().max()) < 1e-3 * float(want.abs().max())


def test_gradients_are_those_of_plain_torch_on_each_conversation_alone():
    transformers = pytest.importorskip("transformers")
    encoder = ByteEncoder()
    tree = a_tree()
    alone = [branch_of(tree, branch, encoder) for branch in tree.branches]
    model = a_model()
    loss_on_labels(model(pack(alone)), pack(alone)).backward()

    # the same loss by torch's own operations, with the adapters put into transformers' weights
    config = transformers.LlamaConfig(
        **{name: getattr(SHAPE, name) for name in SHAPE.__dataclass_fields__},
        tie_word_embeddings=True,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    leaves = {n: p.detach().clone().requires_grad_() for n, p in model.adapter().items()}
    weights = random_weights(0)
    state = dict(weights)
    for i in range(SHAPE.num_hidden_layers):
        for name in LORA_MAPS:
            key = f"model.layers.{i}.{name}.weight"
            low = leaves[f"layers.{i}.{name}.b"] @ leaves[f"layers.{i}.{name}.a"]
            state[key] = weights[key] + model.scale * low
    embedding = weights["model.embed_tokens.weight"]
    state["model.embed_tokens.weight"] = embedding.index_add(
        0, torch.tensor([256, 257, 258]), leaves["delta"]
    )
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    total = torch.zeros(())
    for branch in alone:
        logits = torch.func.functional_call(theirs, state, (torch.tensor([branch.ids]),)).logits[0]
        at = [i for i, learn in enumerate(branch.learn) if learn]
        total = total + torch.nn.functional.cross_entropy(
            logits[[i - 1 for i in at]],
            torch.tensor([branch.ids[i] for i in at]),
            reduction="sum",
        )
    total.backward()
    for name, parameter in model.adapter().items():
        want = leaves[name].grad
        assert parameter.grad is not None
        assert want is not None
        assert float((parameter.grad - want).abs().max()) <= 2e-3 * float(want.abs().max()), name


def test_only_the_assistants_words_and_end_tokens_are_learnt():
    encoder = ByteEncoder()
    tree = a_tree()
    branch = branch_of(tree, tree.branches[0], encoder)
    learnt = encoder.decode([i for i, learn in zip(branch.ids, branch.learn, strict=True) if learn])
    assert learnt == "<|python_tag|>print(2 + 3)<|eom_id|>It is 5.<|eot_id|>"
    assert encoder.decode(branch.ids).endswith("It is 5.<|eot_id|>")


def test_the_guard_learns_its_verdict_alone():
    encoder = ByteEncoder()
    example = SmallGuardExample(
        conversation=(("User", "How do I kill a process?"),), verdict="safe"
    )
    branch = guard_branch(example, encoder)
    learnt = encoder.decode([i for i, learn in zip(branch.ids, branch.learn, strict=True) if learn])
    assert learnt == "safe<|eot_id|>"


def test_labels_of_a_packed_tree_are_the_tokens_behind_their_places():
    packed = pack(
        [
            Labelled([1, 2, 3, 4, 5], [False, False, False, True, True]),
            Labelled([1, 2, 3, 9], [False, False, False, True]),
            Labelled([1, 2, 3, 4, 7, 8], [False, False, False, False, False, True]),
        ]
    )
    assert packed.prefix == 2  # the token before a first label is a branch's own
    assert packed.ids.tolist() == [1, 2, 3, 4, 5, 3, 9, 3, 4, 7, 8]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 2, 3, 2, 3, 4, 5]
    assert packed.labels.tolist() == [4, 5, 9, 8]
    assert packed.at.tolist() == [2, 3, 5, 9]


def endless(packed: Packed):
    while True:
        yield packed


def test_training_learns_and_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path: Path):
    packed = pack_tree(a_tree(), ByteEncoder())
    assert packed is not None

    def trainer() -> Trainer:
        torch.manual_seed(0)
        return Trainer(a_model(trained=False), endless(packed), minutes=1e9, rate=1e-2, labels=10)

    whole = trainer()
    losses = [whole.step() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]

    first = trainer()
    for _ in range(12):
        first.step()
    first.save(tmp_path / "checkpoint")
    second = trainer()
    second.load(tmp_path / "checkpoint")
    again = [second.step() for _ in range(18)]
    assert again == pytest.approx(losses[12:], rel=1e-3)
    assert second.progress.step == 30


def test_a_stopped_run_ends_with_a_checkpoint(tmp_path: Path):
    packed = pack_tree(a_tree(), ByteEncoder())
    assert packed is not None
    trainer = Trainer(a_model(trained=False), endless(packed), minutes=1e9, rate=1e-2, labels=10)
    trainer.step()
    trainer.stopping = True
    trainer.run(tmp_path / "checkpoint")
    later = Trainer(a_model(trained=False), endless(packed), minutes=1e9, rate=1e-2, labels=10)
    later.load(tmp_path / "checkpoint", replay=False)
    assert later.progress.step == 1


def test_the_rate_warms_up_and_falls_with_the_time():
    packed = pack_tree(a_tree(), ByteEncoder())
    assert packed is not None
    trainer = Trainer(a_model(), endless(packed), minutes=10, rate=1.0)
    assert trainer.rate_now() == pytest.approx(1 / 15)
    trainer.progress.step = 100
    trainer.progress.minutes = 5
    assert trainer.rate_now() == pytest.approx(0.525)
    trainer.progress.minutes = 10
    assert trainer.rate_now() == pytest.approx(0.05)


def test_an_exported_adapter_merged_into_the_base_says_what_was_trained(tmp_path: Path):
    from corral.model_runtime.cria.build import merge
    from training.export import Base, Run, export

    packed = pack_tree(a_tree(), ByteEncoder())
    assert packed is not None
    trainer = Trainer(a_model(trained=False), endless(packed), minutes=1e9, rate=1e-2, labels=10)
    for _ in range(5):
        trainer.step()
    run, package = tmp_path / "run", tmp_path / "package"
    run.mkdir()
    package.mkdir()
    trainer.save(run / "checkpoint")
    (run / "settings.json").write_text('{"seed": 1}')
    (package / "manifest.json").write_text('{"base": {}, "adapters": {}}')
    base = random_weights(0)
    adapter = export(
        "cria",
        [Run.read(run)],
        Base(weights=base, control_ids=[256, 257, 258]),
        scores={"tool": 1},
        package=package,
    )

    entry = json.loads((package / "manifest.json").read_text())["adapters"]["cria"]
    assert entry["steps"] == 5
    assert entry["rank"] == 4
    assert entry["scores"] == {"tool": 1}
    arrays = {name: tensor.numpy() for name, tensor in base.items()}
    weights = {n: torch.from_numpy(a) for n, a in merge(arrays, adapter).items()}
    plain = LoraLlama(SHAPE, weights, control_ids=[256, 257, 258], rank=1)
    with torch.no_grad():
        want, got = trainer.model(packed), plain(packed)
    assert float((want - got).abs().max()) < 0.01 * float(want.abs().max())


def test_a_temperature_that_goes_with_an_adapter_divides_its_logits(tmp_path: Path):
    from corral.model_runtime.cria.build import merge
    from training.export import Base, Run, export

    packed = pack_tree(a_tree(), ByteEncoder())
    assert packed is not None
    trainer = Trainer(a_model(trained=False), endless(packed), minutes=1e9, rate=1e-2, labels=10)
    trainer.step()
    trainer.save(tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "settings.json").write_text('{"seed": 1}')
    (tmp_path / "manifest.json").write_text('{"adapters": {}}')
    base = random_weights(0)
    held = Base(weights=base, control_ids=[256, 257, 258])
    adapter = export(
        "cria-guard", [Run.read(tmp_path / "run")], held, temperature=2.0, package=tmp_path
    )
    arrays = {name: tensor.numpy() for name, tensor in base.items()}
    weights = {n: torch.from_numpy(a) for n, a in merge(arrays, adapter).items()}
    plain = LoraLlama(SHAPE, weights, control_ids=[256, 257, 258], rank=1)
    with torch.no_grad():
        want, got = trainer.model(packed) / 2, plain(packed)
    assert float((want - got).abs().max()) < 0.01 * float(want.abs().max())


def test_a_temperature_mends_scores_that_are_too_sure():
    from training.calibration import best_temperature, brier, calibration_error

    # Nine in ten are right, and all are said with 0.999.
    sure = [(0.999, i % 10 != 0) for i in range(500)] + [(0.001, i % 10 == 0) for i in range(500)]
    assert calibration_error(sure) == pytest.approx(0.099, abs=1e-3)
    temperature = best_temperature(sure)
    mended = [
        (1 / (1 + math.exp(-math.log(score / (1 - score)) / temperature)), unsafe)
        for score, unsafe in sure
    ]
    assert calibration_error(mended) < 0.01
    assert brier(mended) < brier(sure)
    assert best_temperature(mended) == pytest.approx(1.0, abs=0.06)


def test_a_run_goes_on_from_an_exported_adapter_and_counts_on(tmp_path: Path):
    from training.export import Base, Run, export, own_tensors, write_adapter

    packed = pack_tree(a_tree(), ByteEncoder())
    assert packed is not None

    def trainer() -> Trainer:
        return Trainer(a_model(trained=False), endless(packed), minutes=1e9, rate=1e-2, labels=10)

    first = trainer()
    losses = [first.step() for _ in range(20)]
    first.save(tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "settings.json").write_text('{"seed": 1}')
    (tmp_path / "manifest.json").write_text('{"adapters": {}}')
    base = random_weights(0)
    held = Base(weights=base, control_ids=[256, 257, 258])
    adapter = export("cria", [Run.read(tmp_path / "run")], held, package=tmp_path)
    entry = json.loads((tmp_path / "manifest.json").read_text())["adapters"]["cria"]

    second = trainer()
    second.begin_with(adapter, entry, base)
    assert second.rate_now() == pytest.approx(1e-2 / 15)  # a fresh optimizer warms up
    assert second.step() == pytest.approx(first.step(), rel=0.05)
    assert second.step() < 0.5 * losses[0]
    assert second.progress.step == 22
    assert second.progress.tokens == 22 * len(packed.ids)

    # a mean of where it began and where it got to
    second.save(tmp_path / "later" / "checkpoint")
    settings = {"seed": 2, "began_with": entry["sha256"]}
    (tmp_path / "later" / "settings.json").write_text(json.dumps(settings))
    write_adapter(
        [Run.read(tmp_path / "later")], held, tmp_path / "mean", share=0.25, before=adapter
    )
    mean, began = (own_tensors(folder, base, 2.0) for folder in (tmp_path / "mean", adapter))
    for name, parameter in second.parameters.items():
        expected = 0.25 * parameter.detach() + 0.75 * began[name]
        assert torch.allclose(mean[name], expected, atol=2e-3), name

    # a mean of two runs that began with the same adapter
    third = trainer()
    third.begin_with(adapter, entry, base)
    third.save(tmp_path / "other" / "checkpoint")
    (tmp_path / "other" / "settings.json").write_text(json.dumps({**settings, "seed": 3}))
    runs = [Run.read(tmp_path / name) for name in ("later", "other")]
    write_adapter(runs, held, tmp_path / "both")
    both = own_tensors(tmp_path / "both", base, 2.0)
    for name, parameter in second.parameters.items():
        expected = 0.5 * parameter.detach() + 0.5 * third.parameters[name].detach()
        assert torch.allclose(both[name], expected, atol=2e-3), name
    export("cria", runs, held, package=tmp_path)
    made = json.loads((tmp_path / "manifest.json").read_text())["adapters"]["cria"]
    assert (made["seed"], made["steps"]) == (2, 22)
    assert [(one["seed"], one["steps"]) for one in made["mean_with"]] == [(3, 20)]
    with pytest.raises(ValueError, match="began with different adapters"):
        write_adapter([*runs, Run.read(tmp_path / "run")], held, tmp_path / "no")
    (tmp_path / "later" / "settings.json").write_text('{"seed": 2, "began_with": "another"}')
    with pytest.raises(ValueError, match="isn't the adapter that .* began with"):
        write_adapter(
            [Run.read(tmp_path / "later")], held, tmp_path / "no", share=0.25, before=adapter
        )


def test_the_card_takes_its_tables_from_the_scores(tmp_path: Path):
    from training.card import write_tables

    card = tmp_path / "CARD.md"
    card.write_text(
        "before\n<!-- cria -->\nold\n<!-- end -->\nafter\n<!-- cria-guard -->\nkept\n<!-- end -->\n"
    )
    share = {"percent": 90.0, "of": 50, "low": 78.6, "high": 95.7}
    held = {"percent": 94.0, "of": 50, "low": 83.8, "high": 97.9}
    scores = {
        "hand": {"tool": share},
        "grammar": {"tool": held},
        "bfcl": {"simple with grammar": {"percent": 70.2, "of": 400, "low": 65.6, "high": 74.5}},
    }
    write_tables({"adapters": {"cria": {"scores": scores}, "cria-guard": {"scores": None}}}, card)
    shown = card.read_text()
    assert (
        "| the right tool or tools | 90.0 % (78.6 to 95.7) | 94.0 % (83.8 to 97.9) | 50 |" in shown
    )
    assert "| simple | - | 70.2 % (65.6 to 74.5) | 400 |" in shown
    assert "old" not in shown
    assert shown.startswith("before\n<!-- cria -->\n")
    assert "<!-- end -->\nafter" in shown
    assert "kept" in shown


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[f(a='x', b=[1, None])]", [("f", {"a": "x", "b": [1, None]})]),
        ("[f(), g(n=-2)]", [("f", {}), ("g", {"n": -2})]),
        (
            "[f(from=1, is='a from=b'), f(\n from=2)]",
            [("f", {"from": 1, "is": "a from=b"}), ("f", {"from": 2})],
        ),
        ("[f(a='", None),
        ("[f(a='x\u2028y', from='z')]", [("f", {"a": "x\u2028y", "from": "z"})]),
        ("[f(1)]", None),
        ("[f(a=b)]", None),
        ("[1, 2]", None),
        ("[]", None),
        ("I can't do that.", None),
    ],
)
def test_the_scorer_reads_calls_and_nothing_else(text, calls):
    from training.scoring import read_calls

    assert read_calls(text) == calls


def test_the_scorer_knows_right_from_wrong():
    from training.scoring import items_of, score

    code, retell, words, _ = items_of(a_tree())
    assert score(code, "<|python_tag|>print(2+3)") == {"code": True}
    assert score(code, "<|python_tag|>print(3 + 2)") == {"code": True}
    assert score(code, "<|python_tag|>print(2 * 3)") == {"code": False}
    assert score(code, "print(2 + 3)") == {"code": False}
    assert score(retell, "That makes 5.") == {"facts": True}
    assert score(retell, "That makes 15.") == {"facts": False}
    assert score(words, "Hello there.") == {"no_needless_call": True}
    assert score(words, "<|python_tag|>print('hi')") == {"no_needless_call": False}
