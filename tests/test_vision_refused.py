"""Images and vision models that are refused, and what is said then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_mllama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import packed, part, picture
from PIL import Image

from corral.errors import ConfigError, ModelError, RuntimeUnavailable
from corral.model_runtime.local.images import IMAGE_LIMITS, ImageLimits
from corral.model_runtime.local.mllama import MllamaEngine
from corral.model_runtime.local.mllama_loading import load_mllama

CAT = picture(1, 60, 30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllama.make(tmp_path_factory.mktemp("x") / "Llama-3.2-11B-Vision-Instruct")


@pytest.fixture(scope="module")
def engine(folder: Path) -> MllamaEngine:
    return load(folder)


def load(folder: Path, limits: ImageLimits = IMAGE_LIMITS) -> MllamaEngine:
    return load_mllama(folder, name="my-model", device="cpu", precision="fp32", limits=limits)


# -- images


def test_an_image_too_large_in_bytes_or_pixels_is_refused_before_it_is_unpacked(folder: Path):
    limits = ImageLimits(max_bytes=3_000, max_pixels=1_000)
    engine = load(folder, limits)
    with pytest.raises(ModelError, match=r"Image 2 of 2 has more than 3,000 bytes.*max_bytes"):
        engine.prepare([part(picture(1, 20, 20)), part(CAT)])
    blank = packed(Image.new("RGB", (40, 30)))
    with pytest.raises(ModelError, match=r"Image 1 of 1 has 40 x 30 pixels, 1,200.*max_pixels"):
        engine.prepare([part(blank)])


def test_a_bomb_of_pixels_is_refused_by_its_header(engine: MllamaEngine):
    bomb = bytearray(packed(Image.new("L", (10, 10))))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ModelError, match="60,000 x 60,000 pixels"):
        engine.prepare([part(bytes(bomb))])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_image_is_named_as_such(engine: MllamaEngine, kind: str):
    whole = packed(CAT, kind)
    for cut in (len(whole) // 2, len(whole) - 60, 40, 14):
        with pytest.raises(ModelError, match="Image 1 of 1 is damaged"):
            engine.prepare([part(whole[:cut])])


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_kinds_of_images_are_refused_with_the_ones_that_are_read(
    engine: MllamaEngine, kind: str
):
    with pytest.raises(ModelError, match="PNG, JPEG and WebP are read"):
        engine.prepare([part(packed(CAT, kind))])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.sampled_from(
        [packed(CAT, kind)[:n] for kind in ("PNG", "JPEG", "WEBP") for n in (14, 60)]
    ),
    rest=st.binary(max_size=200),
)
def test_no_bytes_at_all_break_it_otherwise(engine: MllamaEngine, start: bytes, rest: bytes):
    try:
        engine.prepare([part(start + rest)])
    except ModelError as error:
        assert "Image 1 of 1" in str(error)


def test_a_header_that_never_ends_is_not_read_to_its_end():
    from corral.model_runtime.local.images import check_image

    for filler in (b"\xff", b"\xff\xd0", b"\xff\xe1\0\2"):
        whole = packed(CAT, "JPEG")
        with pytest.raises(ConfigError, match="doesn't say how large"):
            check_image(whole[:2] + filler * 1_000_000 + whole[2:])
        assert check_image(whole[:2] + filler * 20 + whole[2:]) == "image/jpeg"


def test_limits_are_the_users_to_mend():
    from corral.model_runtime.local.images import check_image

    with pytest.raises(ConfigError, match="is of a kind that isn't read"):
        check_image(b"%PDF-1.7")


# -- the model's files


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The model's folder, of which a test may change the small files."""
    for file in folder.iterdir():
        if file.suffix == ".safetensors" or file.name == "tokenizer.json":
            (tmp_path / file.name).symlink_to(file)
        else:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_weights_that_another_program_quantised_are_refused_as_such(copied: Path):
    settings = json.loads((copied / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copied / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RuntimeUnavailable, match="quantised by another program"):
        load(copied)


def test_a_folder_that_doesn_t_say_how_images_are_read_is_refused(copied: Path):
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(RuntimeUnavailable, match=r"'my-model'.*preprocessor_config.json"):
        load(copied)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("preprocessor_config.json", '"height": 28', '"height": 56'),
        ("config.json", '"image_token_index": 267', '"image_token_index": 260'),
    ],
)
def test_files_of_two_models_are_not_mixed(copied: Path, file: str, old: str, new: str):
    text = (copied / file).read_text()
    assert old in text
    (copied / file).write_text(text.replace(old, new))
    with pytest.raises(RuntimeUnavailable, match="don't belong together"):
        load(copied)


def test_weights_that_lack_a_tensor_are_not_filled_up_with_noise(copied: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights[
        "multi_modal_projector.weight"
        if "multi_modal_projector.weight" in weights
        else "model.multi_modal_projector.weight"
    ]
    (copied / "model.safetensors").unlink()
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RuntimeUnavailable, match=r"lack '.*multi_modal_projector.weight'"):
        load(copied)
