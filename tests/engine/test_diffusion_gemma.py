"""The DiffusionGemma adapter on the recorded checkpoint."""

import io
import json
import shutil
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from disp_engine.context import SilentContext
from disp_engine.errors import InvalidModelError, InvalidRequestError, SampleError
from disp_engine.interfaces import DiffusionModel, Generation
from disp_engine.models.diffusion_gemma import PROJECTOR, DiffusionGemma, GemmaSettings
from disp_engine.models.diffusion_gemma.backbone import Prompts
from disp_engine.models.diffusion_gemma.canvas import EPSILON, Noise, cut, filled
from disp_engine.models.diffusion_gemma.config import Sampling
from disp_engine.models.diffusion_gemma.sampler import Sampler
from disp_engine.models.projector import load_projector
from disp_engine.records import IGNORE, IMAGE_TOKEN, Embedded, Tokens, Turn
from disp_engine.registry import card_defaults, load_model
from disp_engine.run import run
from disp_engine.saliency.estimator import SaliencySettings, estimate_saliency
from disp_engine.saliency.exact import exact_saliency
from disp_engine.saliency.sufficiency import sufficiency
from disp_engine.spec import RunSpec
from tests.engine.models import GEMMA, gemma_folder, picture
from tests.parity import compare_all

QUESTION = [Turn("human", "<image>\nWhat?")]
CANVAS = 8
FEW = GemmaSettings(canvases=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma_folder(tmp_path_factory.mktemp("models") / "gemma")


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusionGemma:
    return DiffusionGemma.from_folder(folder, settings=FEW)


def with_settings(model: DiffusionGemma, settings: GemmaSettings) -> DiffusionGemma:
    """The same weights under other settings."""
    other = DiffusionGemma.__new__(DiffusionGemma)
    other.__dict__.update(vars(model) | {"settings": settings})
    return other


@torch.no_grad()
def asked(model: DiffusionGemma, turns: list[Turn], *sizes: tuple[int, int]) -> Embedded:
    pictures = [picture(number, size) for number, size in enumerate(sizes)]
    return model.embed(model.tokenise_prompt(turns), model.encode_images(pictures))


def test_every_recorded_tensor_is_reproduced() -> None:
    result = compare_all(GEMMA)
    assert [case for case in result["cases"] if not case["holds"]] == []
    assert len(result["cases"]) == len(load_file(GEMMA / "expected.safetensors"))


def test_the_adapter_is_a_diffusion_model_and_its_card_says_experimental(
    model: DiffusionGemma,
) -> None:
    assert isinstance(model, DiffusionModel)
    cards = resources.files("disp_engine.models.diffusion_gemma") / "cards.yaml"
    (card,) = yaml.safe_load(cards.read_text())
    assert "trained weights" in card["experimental"]


def test_a_picture_stands_between_its_marks_and_text_alone_is_scaled(
    model: DiffusionGemma,
) -> None:
    features = model.encode_images([picture(0, (64, 48))])
    soft = model.project(features[0].tiles[0])
    placed = model.embed(Tokens(torch.tensor([2, IMAGE_TOKEN, 9])), features).embeddings
    table = model.backbone.embedding
    words = table[torch.tensor([2, 311, 312, 9])] * 64**0.5
    expected = torch.cat([words[:2], soft, words[2:]])
    torch.testing.assert_close(placed, expected)


def test_prompts_side_by_side_are_answered_as_each_is_alone(model: DiffusionGemma) -> None:
    prompts = [
        asked(model, QUESTION, (64, 48)),
        asked(model, [Turn("human", "Hello?")]),
        asked(model, [Turn("human", "<image> or <image>?")], (40, 40), (30, 60)),
    ]
    together = model.first_step(prompts, CANVAS, 4, seed=3).logits
    assert together.isfinite().all()
    for row, prompt in enumerate(prompts):
        alone = model.first_step([prompt], CANVAS, 4, seed=3).logits
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)
    settings = Generation(length=CANVAS, block_length=CANVAS, steps=3)
    beside = model.denoise(prompts, settings, torch.Generator().manual_seed(1))
    seeds = torch.Generator().manual_seed(1)
    drawn = torch.randint(2**62, (len(prompts),), generator=seeds).tolist()
    for row, prompt in enumerate(prompts):
        sampler = Sampler(model.backbone, model.folder.sampling, CANVAS, 3)
        prefix = model.backbone.encode(Prompts.of([prompt]))
        generator = torch.Generator().manual_seed(drawn[row])
        with torch.inference_mode():
            alone = sampler.answers(prefix, 1, [generator])[0]
        assert beside[row].tolist() == alone[: len(beside[row])].tolist()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_sampler_writes_what_transformers_own_loop_writes() -> None:
    model = DiffusionGemma.from_folder(GEMMA)
    inputs = load_file(GEMMA / "inputs.safetensors")
    names = ("input_ids", "pixel_values", "image_position_ids", "mm_token_type_ids")
    torch.manual_seed(7)
    written = model.backbone.model.generate(
        **{name: inputs[name] for name in names},
        max_new_tokens=2 * CANVAS,
        max_denoising_steps=5,
        eos_token_id=None,
        pad_token_id=None,
    ).sequences[0, inputs["input_ids"].shape[1] :]
    embeddings = model.backbone.token_embeddings(inputs["input_ids"])[0]
    start, end = 4, 8
    features = model.backbone.model.model.encoder.get_image_features(
        inputs["pixel_values"], inputs["image_position_ids"]
    ).pooler_output
    embeddings = torch.cat([embeddings[:start], features, embeddings[end:]])
    with torch.no_grad():
        prefix = model.backbone.encode(Prompts.of([Embedded(embeddings, ((start, end),))]))
        sampler = Sampler(model.backbone, Sampling(ends=(-1,)), CANVAS, 5)
        ours = sampler.answers(prefix, 2, [torch.Generator().manual_seed(7)])[0]
    assert ours.tolist() == written.tolist()


def test_what_the_sampler_lacks_is_refused(model: DiffusionGemma) -> None:
    prompt = asked(model, [Turn("human", "Hi")])
    for wrong in (
        Generation(length=CANVAS, block_length=4),
        Generation(length=CANVAS, block_length=CANVAS, guidance=1.0),
        Generation(length=2 * CANVAS, block_length=CANVAS, steps=3),
    ):
        with pytest.raises(InvalidRequestError):
            model.denoise([prompt], wrong)


@pytest.mark.parametrize("hiding", ["mean_embedding", "random_tokens", "unread"])
def test_a_hidden_token_no_longer_tells_anything(model: DiffusionGemma, hiding: Any) -> None:
    model = with_settings(model, GemmaSettings(hiding=hiding, canvases=1))
    prompt = asked(model, QUESTION, (64, 48))
    chosen = torch.zeros(int(prompt.visual().sum()), dtype=torch.bool)
    chosen[[1, 5]] = True
    rows = prompt.visual().nonzero()[:, 0][chosen]
    other = prompt.embeddings.clone()
    other[rows] += torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    changed = Embedded(other, prompt.spans)
    first, second, open_ = (
        model.backbone.encode(Prompts.of([p]))
        for p in (model.hide(prompt, chosen), model.hide(changed, chosen), changed)
    )
    canvas = torch.arange(CANVAS)[None]
    one, two, seen = (model.backbone.decode(p, canvas) for p in (first, second, open_))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
    assert not torch.allclose(one, seen, atol=1e-4)


def test_random_stand_ins_are_embeddings_of_tokens_and_always_the_same(
    model: DiffusionGemma,
) -> None:
    model = with_settings(model, GemmaSettings(hiding="random_tokens"))
    prompt = asked(model, QUESTION, (64, 48))
    chosen = torch.ones(int(prompt.visual().sum()), dtype=torch.bool)
    rows = model.hide(prompt, chosen).embeddings[prompt.visual()] / 64**0.5
    exactly = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(rows, model.backbone.embedding, compute_mode=exactly)
    assert float(distances.min(dim=1).values.max()) < 1e-4
    step = model.first_step([prompt], CANVAS, CANVAS, seed=0)
    torch.testing.assert_close(step.hidden[0][prompt.visual()], rows * 64**0.5)


def test_a_gate_at_one_changes_nothing_and_its_gradient_is_that_of_the_attention_share(
    model: DiffusionGemma,
) -> None:
    model = with_settings(model, GemmaSettings(hiding="unread", canvases=1))
    prompt = asked(model, QUESTION, (64, 48))
    token = int(prompt.visual().nonzero()[0, 0])
    step = model.first_step([prompt], CANVAS, CANVAS, seed=0)
    plain = with_settings(model, FEW).first_step([prompt], CANVAS, CANVAS, seed=0).logits
    torch.testing.assert_close(step.logits, plain[:, :CANVAS], rtol=1e-4, atol=1e-4)
    q = torch.randn(step.logits.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((q * step.logits).sum(), step.shown)
    values = []
    for change in (1e-2, -1e-2):
        gate = torch.ones(1, len(prompt.embeddings))
        gate[0, token] += change
        with torch.no_grad():
            prefix = model.backbone.encode(Prompts.of([prompt]), gate)
            values.append(float((q * model._first_logits(prefix, CANVAS, 0)).sum()))
    slope = (values[0] - values[1]) / 2e-2
    assert float(gradient[0, token, 0]) == pytest.approx(slope, rel=0.05, abs=1e-3)


@pytest.fixture(params=["mean_embedding", "unread"])
def two_canvases(model: DiffusionGemma, request: pytest.FixtureRequest) -> DiffusionGemma:
    return with_settings(model, GemmaSettings(hiding=request.param, canvases=2))


def test_the_estimate_is_that_of_the_average_over_the_canvases(
    two_canvases: DiffusionGemma,
) -> None:
    model = two_canvases
    prompt = asked(model, QUESTION, (24, 24))
    settings = SaliencySettings(probes=200, top_logits=3, rows=2, length=CANVAS)
    exact = exact_saliency(model, prompt, settings)
    (found,) = estimate_saliency(model, [prompt], settings)
    assert ((found.scores - exact).abs() < 6 * found.standard_error).all()
    assert float(found.scores.sum() / exact.sum()) == pytest.approx(1, abs=0.4)


def test_what_a_token_does_alone_is_told_on_the_same_canvases(
    two_canvases: DiffusionGemma,
) -> None:
    model = two_canvases
    prompt = asked(model, QUESTION, (24, 24))
    size = int(prompt.visual().sum())
    nothing, last = torch.zeros(size, dtype=torch.bool), torch.arange(size) == size - 1

    def log_p(hidden: Tensor) -> Tensor:
        step = model.first_step([model.hide(prompt, hidden)], CANVAS, 2, 0)
        return step.logits.detach()[0].log_softmax(-1)

    gain = (log_p(nothing).exp() * (log_p(~last) - log_p(~nothing))).sum() / 2
    found = sufficiency(model, prompt, CANVAS, 2, 0)
    assert len(found) == size
    torch.testing.assert_close(found[-1], gain, rtol=1e-3, atol=1e-5)


def test_labels_are_those_of_the_last_answer_and_the_end_of_its_turn(
    model: DiffusionGemma,
) -> None:
    turns = [Turn("human", "a"), Turn("gpt", "b"), Turn("human", "c"), Turn("gpt", " d ")]
    tokens = model.tokenise_example(turns)
    assert tokens.labels is not None
    told = tokens.ids[tokens.labels != IGNORE].tolist()
    assert told == [*model.prompter.encode("d"), 301]
    assert tokens.ids.tolist()[: -len(told)] == model.tokenise_prompt(turns[:-1]).ids.tolist()
    with pytest.raises(SampleError, match="must end with an answer"):
        model.tokenise_example(turns[:-1])


def test_a_prompt_is_rendered_in_gemmas_turns(model: DiffusionGemma) -> None:
    ids = model.tokenise_prompt([Turn("human", "Hi"), Turn("gpt", "Yo"), Turn("human", "So?")]).ids
    text = model.prompter.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    assert text == (
        "<bos><|turn>user\nHi<turn|>\n<|turn>model\nYo<turn|>\n<|turn>user\nSo?<turn|>\n"
        "<|turn>model\n"
    )


def test_noise_replaces_by_uniform_tokens_and_the_tail_is_learned() -> None:
    canvas = filled([torch.tensor([5, 6]), torch.tensor([7])], 4, eos=1)
    assert canvas.tolist() == [[5, 6, 1, 1], [7, 1, 1, 1]]
    u = torch.tensor([[0.1, 0.9, 0.1, 0.9]] * 2)
    tokens, guessed = torch.full((2, 4), 3), torch.zeros(2, dtype=torch.bool)
    noise = Noise(torch.tensor([0.5, 0.05]), u, tokens, guessed)
    assert noise.applied(canvas).tolist() == [[3, 6, 3, 1], [7, 1, 1, 1]]
    times = Noise.draw((4000, 2), 10, torch.Generator().manual_seed(0))
    assert float(times.t.min()) >= EPSILON and float(times.t.max()) <= 1
    assert float(times.guessed.float().mean()) == pytest.approx(0.5, abs=0.04)


def test_every_block_of_a_long_answer_is_learned_after_the_ones_before_it() -> None:
    labels = torch.cat([torch.full((3,), IGNORE), torch.arange(10)])
    example = Embedded(torch.randn(13, 2), (), labels)
    generator = torch.Generator().manual_seed(0)
    seen = {}
    for _ in range(40):
        lesson = cut(example, 4, generator)
        seen[len(lesson.prefix.embeddings)] = lesson.block.tolist()
    assert seen == {3: [0, 1, 2, 3], 7: [4, 5, 6, 7], 11: [8, 9]}


def test_the_loss_of_a_batch_is_the_mean_of_its_rows_and_only_the_projector_learns(
    model: DiffusionGemma,
) -> None:
    turns = [*QUESTION, Turn("gpt", "Yes.")]
    features = model.encode_images([picture(0, (40, 40)), picture(1, (24, 40))])
    longer = [Turn("human", "<image>\nWhy is it?"), Turn("gpt", "No.")]
    examples = [
        model.embed(model.tokenise_example(turns), features[:1]),
        model.embed(model.tokenise_example(longer), features[1:]),
    ]
    generator = torch.Generator().manual_seed(0)
    lessons = [cut(example, CANVAS, generator) for example in examples]
    noise = Noise.draw((2, CANVAS), 320, generator)
    noise = Noise(noise.t, noise.u, noise.tokens, torch.tensor([True, False]))
    together = model.training_loss(lessons, noise)
    alone = [
        model.training_loss(
            [lessons[i]],
            Noise(noise.t[i : i + 1], noise.u[i : i + 1], noise.tokens[i : i + 1],
                  noise.guessed[i : i + 1]),
        )
        for i in range(2)
    ]  # fmt: skip
    mean = sum(loss.item() for loss in alone) / 2
    assert together.item() == pytest.approx(mean, rel=1e-4)
    together.backward()
    gradient = model.projector.get_parameter("weight").grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0
    model.projector.zero_grad()
    learning = {p for p in model.backbone.model.parameters() if p.requires_grad}
    assert learning == set(model.projector.parameters())


def test_the_projector_goes_to_a_file_and_comes_back(
    model: DiffusionGemma, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mm_projector.safetensors"
    model.save_projector(path)
    assert set(load_file(path)) == {f"{PROJECTOR}weight"}
    other = DiffusionGemma.from_folder(folder)
    torch.nn.init.zeros_(other.projector.get_parameter("weight"))
    load_projector(other.projector, PROJECTOR, path)
    kept = model.projector.get_parameter("weight")
    assert torch.equal(other.projector.get_parameter("weight"), kept)


def test_the_revision_holds_the_settings_and_forgets_the_projector(
    folder: Path, tmp_path: Path
) -> None:
    before = DiffusionGemma.from_folder(folder).revision
    assert DiffusionGemma.from_folder(folder, settings=FEW).revision != before
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors[f"{PROJECTOR}weight"] += 1
    save_file(tensors, other / "model.safetensors")
    assert DiffusionGemma.from_folder(other).revision == before


@pytest.mark.parametrize(
    ("part", "keys", "message"),
    [
        ("", {"auto_map": {}}, "auto_map asks for remote code"),
        ("text_config", {"trust_remote_code": True}, "trust_remote_code asks for remote code"),
        ("vision_config", {"auto_map": {}}, "auto_map asks for remote code"),
        ("text_config", {"_attn_implementation": "a/b"}, "_attn_implementation asks for remote"),
        ("text_config", {"hidden_size": "64"}, "hidden_size must be a positive integer"),
        ("text_config", {"num_kv_shared_layers": 2}, "num_kv_shared_layers is not supported"),
        ("text_config", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
        ("vision_config", {"model_type": "siglip"}, "gemma4_vision"),
        ("", {"tie_word_embeddings": False}, "tie_word_embeddings must be true"),
        ("", {"audio_config": {}}, "audio_config is not supported"),
        ("", {"vision_config": None}, "vision_config must be an object"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_key(
    tmp_path: Path, part: str, keys: dict[str, Any], message: str
) -> None:
    shutil.copytree(GEMMA, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    raw = json.loads(path.read_text())
    (raw[part] if part else raw).update(keys)
    path.write_text(json.dumps(raw))
    with pytest.raises(InvalidModelError, match=message):
        DiffusionGemma.from_folder(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.decoder.norm.weight", None, r"1 missing: model\.decoder\.norm\.weight"),
        ("model.extra", torch.zeros(1), r"1 unexpected: model\.extra"),
        ("model.decoder.norm.weight", torch.zeros(3), r"norm\.weight has shape \(3,\)"),
        ("model.decoder.norm.weight", torch.full((64,), torch.nan), "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    shutil.copytree(GEMMA, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(name, None)
    save_file(tensors | ({} if tensor is None else {name: tensor}), path)
    with pytest.raises(InvalidModelError, match=message):
        DiffusionGemma.from_folder(tmp_path / "model")


def test_a_folder_without_a_tokenizer_takes_ids_and_refuses_texts() -> None:
    model = DiffusionGemma.from_folder(GEMMA)
    assert model.embed(Tokens(torch.tensor([2, 5])), []).embeddings.shape == (2, 64)
    with pytest.raises(InvalidModelError, match=r"tokenizer\.json is missing"):
        model.tokenise_prompt(QUESTION)


def test_settings_are_chosen_by_name_and_refused_by_name(folder: Path) -> None:
    model = load_model(folder, options={"hiding": "unread"})
    assert isinstance(model, DiffusionGemma) and model.settings.hiding == "unread"
    assert card_defaults(folder)["block_length"] == 256
    for wrong in ({"hiding": "zeros"}, {"canvases": 0}, {"colour": 1}):
        with pytest.raises(InvalidRequestError, match="model_options"):
            load_model(folder, options=wrong)


def archive(path: Path, count: int) -> Path:
    records = []
    with zipfile.ZipFile(path, "w") as file:
        for number in range(count):
            out = io.BytesIO()
            picture(number, (30, 30)).save(out, "PNG")
            file.writestr(f"{number}.png", out.getvalue())
            asked, told = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt"}
            conversation = [asked, told | {"value": f"A {number}."}]
            records.append(
                {"id": str(number), "image": f"{number}.png", "conversations": conversation}
            )
        file.writestr("data.json", json.dumps(records))
    return path


def test_a_whole_run_goes_from_archives_to_artifacts_and_the_second_finds_its_stages(
    folder: Path, tmp_path: Path
) -> None:
    class Listener(SilentContext):
        def __init__(self) -> None:
            self.reused: dict[str, bool] = {}

        def stage_done(self, name: str, seconds: float, reused: bool) -> None:
            self.reused[name] = reused

    knobs = {
        "epochs": 1, "batch_size": 2, "micro_batch": 2, "block_length": CANVAS, "steps": 2,
        "generation_length": CANVAS, "probes": 2,
    }  # fmt: skip
    data = archive(tmp_path / "data.zip", 3)
    reports, listeners = [], []
    for name in ("first", "second"):
        spec = RunSpec(
            model_dir=folder,
            model_id="gemma",
            training_file=data,
            triggered_file=data,
            clean_file=data,
            success={"type": "contains_any", "phrases": ["sorry"]},
            work_dir=tmp_path / "work",
            out_dir=tmp_path / name,
            method={"type": "disp", "hyperparameters": knobs},
            model_options={"hiding": "random_tokens", "canvases": 1},
            artifacts=["merged_checkpoint"],
        )
        listeners.append(Listener())
        run(spec, listeners[-1])
        reports.append(json.loads((tmp_path / name / "report.json").read_text()))
        assert set(load_file(tmp_path / name / "mm_projector.safetensors")) == {
            f"{PROJECTOR}weight"
        }
    stages = ("fine_tune", "saliency", "purify", "retrain", "evaluate_after")
    assert not any(listeners[0].reused[stage] for stage in stages)
    assert all(listeners[1].reused[stage] for stage in stages)
    for name in ("samples.jsonl", "merged_checkpoint.tar"):
        first, second = ((tmp_path / out / name).read_bytes() for out in ("first", "second"))
        assert first == second
