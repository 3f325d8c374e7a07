"""The LLaDA-V adapter on the recorded checkpoint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from disp_engine.errors import InvalidModelError, SampleError
from disp_engine.interfaces import Generation
from disp_engine.models.llada_v import LladaV
from disp_engine.models.llava.weights import PROJECTOR
from disp_engine.models.projector import load_projector
from disp_engine.records import IGNORE, Turn
from disp_engine.registry import load_model
from tests.parity import compare_all

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_v" / "anyres"
QUESTION = [Turn("human", "<image>\nWhat is it?")]
EXAMPLE = [*QUESTION, Turn("gpt", "A cat.")]


def picture(seed: int, size: tuple[int, int] = (56, 56)) -> Image.Image:
    values = np.random.default_rng(seed).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def model() -> LladaV:
    return LladaV.from_folder(FIXTURE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in FIXTURE.iterdir():
        shutil.copy(file, tmp_path / file.name)
    return tmp_path


def rewrite_weights(folder: Path, change: dict[str, Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in change.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


def rewrite_config(folder: Path, **keys: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | keys))


def test_every_recorded_tensor_of_the_official_code_is_reproduced() -> None:
    result = compare_all(FIXTURE)
    assert [case for case in result["cases"] if not case["holds"]] == []
    assert len(result["cases"]) > len(load_file(FIXTURE / "expected.safetensors"))


def test_the_tower_runs_once_over_every_different_tile(
    model: LladaV, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = model.tower.forward
    monkeypatch.setattr(
        model.tower, "forward", lambda pixels: (seen.append(len(pixels)), forward(pixels))[1]
    )
    first, again, other = model.encode_images([picture(0), picture(0), picture(1)])
    assert sum(seen) == 2  # at 56 x 56 the whole picture and its one tile are the same
    torch.testing.assert_close(first.tiles, again.tiles, rtol=0, atol=0)
    assert not torch.equal(first.tiles, other.tiles)


def test_unused_rows_of_the_vocabulary_leave_the_softmax(model: LladaV) -> None:
    embedded = model.embed(model.tokenise_prompt([Turn("human", "Hello")]), [])
    scores = model.logits(embedded.embeddings[None], torch.tensor([[0]]))
    assert scores.shape == (1, 1, model.prompter.size)
    assert model.prompter.size < json.loads((FIXTURE / "config.json").read_text())["vocab_size"]


def test_a_batch_of_pictures_is_denoised_as_each_is_alone(model: LladaV) -> None:
    sizes = [(56, 56), (90, 50), (60, 130)]
    features = model.encode_images([picture(i, size) for i, size in enumerate(sizes)])
    tokens = model.tokenise_prompt(QUESTION)
    prompts = [model.embed(tokens, [one]) for one in features]
    settings = Generation(length=8, block_length=4, stop=())
    together = model.denoise(prompts, settings)
    alone = [model.denoise([prompt], settings)[0] for prompt in prompts]
    assert [ids.tolist() for ids in together] == [ids.tolist() for ids in alone]
    assert not together[0].is_inference()


def test_padding_that_is_not_attended_does_not_change_logits(model: LladaV) -> None:
    embeddings = model.embed(model.tokenise_prompt([Turn("human", "Hi")]), []).embeddings[None]
    rows = torch.tensor([[3, 5]])
    padded = torch.cat([embeddings, torch.randn(1, 4, embeddings.shape[2])], dim=1)
    attended = torch.arange(padded.shape[1])[None] < embeddings.shape[1]
    torch.testing.assert_close(
        model.logits(padded, rows, attended), model.logits(embeddings, rows), rtol=0, atol=1e-5
    )


def test_only_the_projector_learns(model: LladaV) -> None:
    (features,) = model.encode_images([picture(0)])
    example = model.embed(model.tokenise_example(EXAMPLE), [features])
    shape = model.collate([example]).labels.shape
    model.training_loss([example], torch.tensor([0.5]), torch.full(shape, 0.1)).backward()
    assert all(value.grad is not None for value in model.projector.parameters())
    frozen = (*model.language.parameters(), *model.tower.parameters())
    assert not any(value.requires_grad for value in frozen)
    model.projector.zero_grad()


def test_text_padding_is_learned_and_picture_padding_is_not(model: LladaV) -> None:
    small, large = model.encode_images([picture(0), picture(1, (160, 160))])
    longer = [*QUESTION, Turn("gpt", "A cat on a mat.")]
    short = model.embed(model.tokenise_example(EXAMPLE), [small])
    long = model.embed(model.tokenise_example(longer), [large])
    batch = model.collate([short, long])
    pads, zeros = len(" on a mat"), len(long.embeddings) - len(short.embeddings) - len(" on a mat")
    tail = batch.labels[0, len(short.embeddings) :]
    assert tail.tolist() == [model.prompter.pad] * pads + [IGNORE] * zeros
    assert zeros > 0 and not batch.embeddings[0, -zeros:].any()


def test_rounds_begin_at_the_second_user_turn(model: LladaV) -> None:
    turns = [Turn("human", "a"), Turn("gpt", "b"), Turn("human", "c"), Turn("gpt", "d")]
    tokens = model.tokenise_example(turns)
    first = model.tokenise_example(turns[:2])
    assert tokens.labels is not None
    rounds = model.rounds(tokens.labels[None])[0]
    assert rounds[: len(first.ids)].eq(0).all() and rounds[len(first.ids) :].eq(1).all()


def test_a_picture_without_a_place_is_refused(model: LladaV) -> None:
    with pytest.raises(SampleError, match="0 <image> for 1 pictures"):
        model.embed(model.tokenise_prompt([Turn("human", "Hi")]), model.encode_images([picture(0)]))


def test_a_prompt_too_long_is_refused_and_an_example_is_cut(folder: Path) -> None:
    rewrite_config(folder, tokenizer_model_max_length=200)
    short = LladaV.from_folder(folder)
    features = short.encode_images([picture(0)])
    with pytest.raises(SampleError, match="of 200 positions"):
        short.embed(short.tokenise_prompt(QUESTION), features)
    example = short.embed(short.tokenise_example(EXAMPLE), features)
    assert example.labels is not None and example.spans[-1][1] == 200
    assert len(example.embeddings) == len(example.labels) == 200


def test_the_projector_goes_to_a_file_and_comes_back(model: LladaV, tmp_path: Path) -> None:
    path = tmp_path / "mm_projector.safetensors"
    model.save_projector(path)
    assert set(load_file(path)) == {
        f"model.mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    other = LladaV.from_folder(FIXTURE)
    torch.nn.init.zeros_(other.projector.get_parameter("0.weight"))
    load_projector(other.projector, PROJECTOR, path)
    for name, value in model.projector.named_parameters():
        assert torch.equal(other.projector.get_parameter(name), value)


def test_a_projector_of_another_shape_is_refused_untouched(model: LladaV, tmp_path: Path) -> None:
    model.save_projector(tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    before = model.projector.get_parameter("0.weight").clone()
    tensors = {name: value + 1 for name, value in tensors.items()}
    tensors["model.mm_projector.2.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(InvalidModelError, match=r"mm_projector\.2\.bias has shape \(3,\)"):
        load_projector(model.projector, PROJECTOR, tmp_path / "b.safetensors")
    assert torch.equal(model.projector.get_parameter("0.weight"), before)


def test_the_revision_forgets_the_projector_and_nothing_else(model: LladaV, folder: Path) -> None:
    rewrite_weights(folder, {"model.mm_projector.0.bias": torch.ones(64)})
    assert LladaV.from_folder(folder).revision == model.revision
    rewrite_weights(folder, {"model.norm.weight": torch.zeros(64)})
    assert LladaV.from_folder(folder).revision != model.revision


def test_sharded_weights_give_the_same_model(model: LladaV, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert LladaV.from_folder(folder).revision == model.revision


def test_names_of_a_raw_llada_are_understood(model: LladaV, folder: Path) -> None:
    blocks = {"gate_proj": "ff_proj", "down_proj": "ff_out", "input_layernorm": "attn_norm"}
    change: dict[str, Tensor | None] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        raw = name.replace("model.layers.", "model.transformer.blocks.")
        raw = raw.replace("post_attention_layernorm", "ff_norm").replace("o_proj", "attn_out")
        raw = raw.replace(".self_attn.", ".").replace(".mlp.", ".")
        for ours, theirs in blocks.items():
            raw = raw.replace(ours, theirs)
        raw = raw.replace("model.embed_tokens", "model.transformer.wte")
        raw = raw.replace("model.norm", "model.transformer.ln_f")
        raw = raw.replace("lm_head", "model.transformer.ff_out")
        if "vision_tower" not in name and "mm_projector" not in name:
            change |= {name: None, raw: tensor}
    rewrite_weights(folder, change)
    assert LladaV.from_folder(folder).revision == model.revision


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.norm.weight", None, r"1 missing: model\.norm\.weight"),
        ("model.extra", torch.zeros(1), r"1 unexpected: model\.extra"),
        ("model.norm.weight", torch.zeros(3), r"model\.norm\.weight has shape \(3,\)"),
        ("model.norm.weight", torch.full((64,), torch.nan), r"model\.norm\.weight .*not finite"),
        ("lm_head.weight", torch.zeros(9, 64), r"lm_head\.weight has shape \(9, 64\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    folder: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    rewrite_weights(folder, {name: tensor})
    with pytest.raises(InvalidModelError, match=message):
        LladaV.from_folder(folder)


def test_a_pickle_is_refused_with_the_way_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidModelError, match=r"pytorch_model\.bin is a pickle.*save_file"):
        LladaV.from_folder(folder)


def test_a_shard_outside_the_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidModelError, match=r"elsewhere\.safetensors"):
        LladaV.from_folder(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"auto_map": {}}, "auto_map asks for remote code"),
        ({"trust_remote_code": True}, "trust_remote_code asks for remote code"),
        ({"_attn_implementation": "someone/kernel"}, "_attn_implementation asks for remote code"),
        ({"hidden_size": "64"}, "hidden_size must be a positive integer"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling {'factor': 2} is not supported"),
        ({"image_aspect_ratio": "highres"}, "image_aspect_ratio 'highres'"),
        ({"image_grid_pinpoints": [[50, 56]]}, "multiples of 56"),
        ({"image_grid_pinpoints": None}, "image_grid_pinpoints is missing"),
        ({"mm_hidden_size": 1152}, "mm_hidden_size 1152"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_key(
    folder: Path, keys: dict[str, object], message: str
) -> None:
    rewrite_config(folder, **keys)
    with pytest.raises(InvalidModelError, match=message):
        LladaV.from_folder(folder)


def test_the_registry_finds_the_family_by_architecture(folder: Path) -> None:
    assert isinstance(load_model(folder), LladaV)
    rewrite_config(folder, architectures=["SomethingElse"])
    with pytest.raises(InvalidModelError, match="SomethingElse"):
        load_model(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_projector_that_can_learn(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    small = LladaV.from_folder(FIXTURE, dtype=dtype)
    assert {value.dtype for value in small.language.parameters()} == {dtype}
    assert {value.dtype for value in small.projector.parameters()} == {torch.float32}
    (features,) = small.encode_images([picture(0)])
    assert features.tiles.dtype == dtype
    prompt = small.embed(small.tokenise_prompt(QUESTION), [features])
    assert len(small.denoise([prompt], Generation(4, 4, stop=()))[0]) == 4
    example = small.embed(small.tokenise_example(EXAMPLE), [features])
    loss = small.noised_loss([example], torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(value.grad.isfinite().all() for value in small.projector.parameters())  # type: ignore[union-attr]
    small.save_projector(tmp_path / "p.safetensors")
    assert {value.dtype for value in load_file(tmp_path / "p.safetensors").values()} == {dtype}


def test_half_precision_says_what_float32_says(model: LladaV) -> None:
    """On logits of this size bfloat16 rounds by some hundredths of the largest."""
    small = LladaV.from_folder(FIXTURE, dtype=torch.bfloat16)
    rows = torch.tensor([[0, 50, 200]])
    embedded = model.embed(model.tokenise_prompt(QUESTION), model.encode_images([picture(0)]))
    exact = model.logits(embedded.embeddings[None], rows)
    rounded = small.logits(embedded.embeddings[None].bfloat16(), rows).float()
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_two_pictures_as_one_tensor_have_no_newlines(model: LladaV) -> None:
    tokens = model.tokenise_prompt([Turn("human", "<image> <image>\nWhich?")])
    sizes = ((56, 56), (90, 50))
    pictures = [picture(i, size) for i, size in enumerate(sizes)]
    as_tensor = model.embed(tokens, model.encode_images(pictures, as_list=False))
    side = model.config.vision.side
    assert [end - start for start, end in as_tensor.spans] == [side**2] * 2
    as_list = model.embed(tokens, model.encode_images(pictures))
    assert all(end - start > side**2 for start, end in as_list.spans)


def test_a_pickled_projector_is_refused_with_the_way_out(model: LladaV, tmp_path: Path) -> None:
    path = tmp_path / "mm_projector.bin"
    torch.save({"model.mm_projector.0.bias": torch.zeros(64)}, path)
    with pytest.raises(InvalidModelError, match=r"mm_projector\.bin is a pickle.*save_file"):
        load_projector(model.projector, PROJECTOR, path)
    path.rename(path.with_suffix(".safetensors"))
    with pytest.raises(InvalidModelError, match=r"mm_projector\.safetensors is a pickle"):
        load_projector(model.projector, PROJECTOR, path.with_suffix(".safetensors"))
