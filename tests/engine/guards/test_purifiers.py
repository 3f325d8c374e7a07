"""Guards that purify pictures by a model of pictures: their arithmetic, on tiny random networks."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL.Image import Image, fromarray

from disp_engine import registry
from disp_engine.errors import InvalidModelError, InvalidRequestError
from disp_engine.guards import samp_detox
from disp_engine.guards.bdmae import BdmaeSettings, _mean_where
from disp_engine.guards.denoiser import Denoiser, pairs, times
from disp_engine.guards.diff_pure import DiffPureSettings
from disp_engine.guards.guard import Question
from disp_engine.guards.inpainter import Inpainter
from disp_engine.guards.pictures import grey, shares, ssim_map
from disp_engine.guards.samp_detox import SampDetox, SampDetoxSettings, rescaled
from disp_engine.guards.zip import Zip, ZipSettings
from disp_engine.guards.zip import grey as without_colour
from disp_engine.records import Turn
from tests.engine.causal_models import causal_model
from tests.engine.models import picture
from tests.engine.picture_models import SIDE, TOKENS, ddpm_folder, mae_folder

CPU = torch.device("cpu")


def denoiser() -> Denoiser:
    return Denoiser.from_folder(ddpm_folder(), CPU)


def asked(image: Image) -> Question:
    return Question((Turn("human", "<image>\nWhat?"),), (image,))


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class Truth:
    """A network that knows the one picture that there is, so that its noise is known too."""

    def __init__(self, x: torch.Tensor, schedule: Any) -> None:
        self.x, self.alphas, self.device = x, schedule.alphas_cumprod, CPU

    def __call__(self, noised: torch.Tensor, t: int) -> Any:
        a = self.alphas[t]
        noise = (noised - a**0.5 * self.x) / (1 - a) ** 0.5
        return type("Out", (), {"sample": noise})()


def knowing(x: torch.Tensor) -> Denoiser:
    found = denoiser()
    return Denoiser(Truth(x, found.schedule), found.schedule, found.side)


def test_a_step_back_is_that_of_diffusers_scheduler() -> None:
    found, generator = denoiser(), draws()
    x = torch.rand(1, 3, SIDE, SIDE, generator=generator) * 2 - 1
    kind: Any = DDPMScheduler
    library = kind.from_config(found.schedule.config, clip_sample=True)
    for t in (30, 7, 1):
        noise = found.noise(x, t)
        expected = library.step(noise, t, x, generator=draws()).prev_sample
        ours = found.before(x, found.guessed(x, t), t, t - 1, draws())
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_who_knows_the_picture_brings_it_back_from_any_noise() -> None:
    x = torch.rand(1, 3, SIDE, SIDE, generator=draws()) * 2 - 1
    found = knowing(x)
    for falling in (times(39, None), times(39, 5), times(3, None)):
        back = found.denoised(found.noised(x, falling[0], draws()), falling, draws())
        torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-4)


def test_times_fall_to_nought() -> None:
    assert times(4, None) == [4, 3, 2, 1, 0] == times(4, 9)
    assert times(8, 3) == [8, 4, 0]
    assert pairs([8, 4, 0]) == [(8, 4), (4, 0), (0, -1)]


def test_a_picture_goes_in_and_comes_out_at_its_own_size() -> None:
    found = denoiser()
    image = picture(3, (SIDE, SIDE))
    assert (np.asarray(found.shown(found.read(image), image)) == np.asarray(image)).all()
    assert found.shown(found.read(picture(0, (40, 20))), picture(0, (40, 20))).size == (40, 20)


def test_diff_pure_noises_the_share_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of forty steps: x_10 is the tenth, of number 9."""
    guard = DiffPureSettings(str(ddpm_folder()), share=0.25).build(causal_model("llava_1_5"))
    seen: list[int] = []
    plain = Denoiser.noise
    monkeypatch.setattr(Denoiser, "noise", lambda s, x, t: seen.append(t) or plain(s, x, t))
    guard.prepared(asked(picture(0, (20, 20))))
    assert seen == list(range(9, -1, -1))


@pytest.mark.parametrize(
    ("name", "options"), [("diff_pure", {"steps": 3}), ("zip", {"steps": 4}), ("samp_detox", {})]
)
def test_the_same_picture_is_purified_alike_and_another_seed_otherwise(
    name: str, options: dict[str, Any]
) -> None:
    model = causal_model("llava_1_5")
    given = options | {"ddpm": str(ddpm_folder())}
    shown = [
        np.asarray(registry.guard(name, model, given | {"seed": s}).prepared(question).images[0])
        for s in (0, 0, 1)
        for question in [asked(picture(2, (SIDE, SIDE)))]
    ]
    assert (shown[0] == shown[1]).all() and (shown[0] != shown[2]).any()


def test_zip_keeps_what_both_degradations_leave() -> None:
    """The mean of two projections keeps what is in both ranges: the blurred picture without colour.

    In the other parts the guesses of a network that knows another picture count.
    """
    settings = ZipSettings(str(ddpm_folder()), steps=6, scale=4, threshold=1.0)
    x, other = (torch.rand(1, 3, SIDE, SIDE, generator=draws()) * s - 0.5 for s in (0.5, 1.0))
    guard = Zip(causal_model("llava_1_5"), knowing(other), settings)
    found = guard.purified(x, draws())

    def both(p: torch.Tensor) -> torch.Tensor:
        return without_colour(guard._blurred(p))

    def neither(p: torch.Tensor) -> torch.Tensor:
        return p - without_colour(p) - guard._blurred(p) + both(p)

    torch.testing.assert_close(both(found), both(x), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(neither(found), neither(other), atol=1e-4, rtol=1e-3)


def test_structure_is_one_with_itself_and_lost_where_a_square_is_gone() -> None:
    pixels = np.full((16, 16, 3), 0.8)
    marked = pixels.copy()
    marked[4:8, 4:8] = 0.0
    same = ssim_map(grey(marked), grey(marked))
    np.testing.assert_allclose(same, 1.0)
    lost = 1 - ssim_map(grey(pixels), grey(marked))
    assert lost[4:8, 4:8].min() > 0.5 > lost[:, 13:].max()
    np.testing.assert_allclose(grey(np.ones((1, 1, 3))), 1.0)
    np.testing.assert_allclose(rescaled(np.array([[2.0, 4.0], [3.0, 2.0]])), [[0, 1], [0.5, 0]])
    np.testing.assert_allclose(rescaled(np.ones((2, 2))), 1.0)


def test_samp_detox_leaves_pixels_whose_structure_stayed_as_the_first_round_left_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = SampDetoxSettings(str(ddpm_folder()), share=0.5)
    guard = SampDetox(causal_model("llava_1_5"), denoiser(), settings)
    kept = np.ones((SIDE, SIDE))
    kept[:4, :4] = 0.0
    monkeypatch.setattr(samp_detox, "ssim_map", lambda a, b: kept)
    x = torch.rand(1, 3, SIDE, SIDE, generator=draws()) * 2 - 1
    found = guard.purified(x, draws())
    generator = draws()
    first = guard.denoiser.denoised(
        guard.denoiser.noised(x, 19, generator), times(19, None), generator
    )
    assert torch.equal(found[..., 4:, :], first[..., 4:, :])
    assert not torch.equal(found[..., :4, :4], first[..., :4, :4])


def test_an_autoencoder_paints_hidden_tokens_and_no_others() -> None:
    inpainter, image = Inpainter.from_folder(mae_folder(), CPU), picture(1, (SIDE, SIDE))
    hidden = np.zeros(TOKENS, dtype=bool)
    hidden[[0, 5]] = True
    changed = (np.asarray(inpainter.painted(image, hidden)) != np.asarray(image)).any(axis=-1)
    assert changed[:4, :4].any() and changed[4:8, 4:8].any()
    changed[:4, :4] = changed[4:8, 4:8] = False
    assert not changed.any()


def test_masks_hide_three_quarters_and_are_the_pictures_own() -> None:
    inpainter, image = Inpainter.from_folder(mae_folder(), CPU), picture(1, (SIDE, SIDE))
    masks = inpainter.masks(image, 5, 0)
    assert masks.shape == (5, TOKENS) and (masks.sum(axis=1) == 12).all()
    assert (inpainter.masks(image, 5, 0) == masks).all()
    assert (inpainter.masks(picture(2, (SIDE, SIDE)), 5, 0) != masks).any()
    values = np.zeros((SIDE, SIDE))
    values[4:8, 8:12] = 3.0
    assert inpainter.by_token(values).tolist() == [0.0] * 6 + [3.0] + [0.0] * 9


def test_a_score_is_the_mean_over_the_masks_that_hide_the_token() -> None:
    masks = np.array([[True, False], [True, False], [False, False]])
    found = _mean_where(masks, np.array([[1.0, 9.0], [0.5, 9.0], [9.0, 9.0]]))
    np.testing.assert_allclose(found, [0.75, 0.0])


def test_bdmae_paints_over_what_scores_above_its_threshold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = BdmaeSettings(str(mae_folder()), masks=2).build(causal_model("llava_1_5"))
    scores = np.zeros(TOKENS)
    monkeypatch.setattr(guard, "scores", lambda question, number: scores)
    question = asked(picture(1, (SIDE, SIDE)))
    assert guard.prepared(question) is question, "nothing is suspicious"
    scores[15] = 0.7
    (shown,) = guard.prepared(question).images
    changed = (np.asarray(shown) != np.asarray(question.images[0])).any(axis=-1)
    assert changed[12:, 12:].any() and not changed[:12].any()


def test_bdmaes_scores_weigh_picture_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = BdmaeSettings(str(mae_folder()), masks=3, alpha=0.25).build(causal_model("llava_1_5"))
    question = asked(picture(1, (SIDE, SIDE)))
    masks = guard.inpainter.masks(question.images[0], 3, 0)
    monkeypatch.setattr(guard, "_answers", lambda prompts: ["a", "a", "b", "c"])
    monkeypatch.setattr(guard, "_unlike", lambda *given: np.full(TOKENS, 0.4))
    changed = np.array([0.0, 1.0, 1.0])[:, None]
    expected = 0.1 + 0.75 * (masks * changed).sum(axis=0) / np.maximum(masks.sum(axis=0), 1)
    np.testing.assert_allclose(guard.scores(question, 0), expected)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("diff_pure", {"share": 1.0}),
        ("diff_pure", {"steps": 0}),
        ("samp_detox", {"share": 0.0}),
        ("zip", {"scale": 3}),
        ("bdmae", {"threshold": 1.0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, wrong: dict[str, Any]) -> None:
    given = {"mae": str(mae_folder())} if name == "bdmae" else {"ddpm": str(ddpm_folder())}
    with pytest.raises(InvalidRequestError, match="guard"):
        registry.guard(name, causal_model("llava_1_5"), given | wrong)


def test_folders_that_are_no_such_network_are_refused(tmp_path: Path) -> None:
    model = causal_model("llava_1_5")
    for name, folder in (("diff_pure", ddpm_folder()), ("bdmae", mae_folder())):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        part = copy / "unet" if name == "diff_pure" else copy
        raw = json.loads((part / "config.json").read_text())
        raw |= {"in_channels": 1} if name == "diff_pure" else {"hidden_size": 8}
        (part / "config.json").write_text(json.dumps(raw))
        key = "ddpm" if name == "diff_pure" else "mae"
        with pytest.raises(InvalidModelError, match=key):
            registry.guard(name, model, {key: str(copy)})
        for weights in copy.rglob("*.safetensors"):
            weights.unlink()
        with pytest.raises(InvalidModelError, match=key):
            registry.guard(name, model, {key: str(copy)})


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.models.unets.unet_2d", None)
    with pytest.raises(InvalidRequestError, match=r"disp\[purifiers\]"):
        Denoiser.from_folder(ddpm_folder(), CPU)


def test_shares_of_a_picture_are_its_bytes() -> None:
    image = fromarray(np.full((2, 3, 3), 255, dtype=np.uint8))
    np.testing.assert_allclose(shares(image), 1.0)
