"""A whole job in the browser: followed, filtered, looked at, by mouse and by keyboard."""

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from schemas.jobs import StageName, StepStatus
from storage.interfaces import StepUpdate
from tests.web.world import begin, finish, finished_job, train


@pytest.fixture
def page(browser: BrowserContext, url: str, api, said: list[str]) -> Page:
    """Signed in through the form, by keyboard alone."""
    page = browser.pages[0]
    page.goto(f"{url}/ui/jobs")
    expect(page).to_have_title("Sign in · DiSP")
    page.keyboard.type(api.client.headers["Authorization"].removeprefix("Bearer "))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    return page


def test_a_job_is_followed_to_its_end_without_a_reload(page, api, said, shoot):
    claim = begin(api, "shapes-march")
    page.reload()
    page.get_by_role("link", name="shapes-march").click()
    expect(page.get_by_role("status")).to_contain_text("validating files")
    page.evaluate("window.sameDocument = true")
    train(api.gateway.jobs, claim)
    expect(page.get_by_role("status")).to_contain_text("running: purify")
    bar = page.get_by_role("progressbar", name="purify")
    expect(bar).to_have_attribute("value", "50.0")
    expect(page.get_by_role("img", name=re.compile("loss in fine tune: from"))).to_be_visible()
    shoot(page, "job-running")
    step = StepUpdate(StageName.PURIFY, StepStatus.RUNNING, done=54, total=72)
    api.gateway.jobs.record(claim, steps=[step])
    expect(bar).to_have_attribute("value", "75.0")
    finish(api, claim)
    expect(page.get_by_text("This dataset is poisoned")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("succeeded")
    assert page.evaluate("window.sameDocument"), "it was the same page all the time"
    shoot(page, "job")
    assert said == []


def test_samples_are_filtered_and_more_of_them_come_into_the_same_page(page, api, said, shoot):
    job_id = finished_job(api)
    page.reload()
    page.get_by_role("link", name="shapes-march").click()
    page.get_by_role("link", name="Samples", exact=True).click()
    rows = page.locator("tbody tr:not(.more)")
    expect(rows).to_have_count(50)
    page.get_by_role("link", name="More samples").click()
    expect(rows).to_have_count(72)
    shoot(page, "samples")
    page.get_by_role("link", name="flagged", exact=True).click()
    expect(rows).to_have_count(12)
    current = page.get_by_role("link", name="flagged", exact=True)
    expect(current).to_have_attribute("aria-current", "page")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    assert download.value.suggested_filename == f"{job_id}-flagged.csv"
    assert said == []


def test_a_samples_map_is_faded_and_arrow_keys_go_on(page, api, url, said, shoot):
    job_id = finished_job(api)
    page.goto(f"{url}/ui/jobs/{job_id}/samples?shown=flagged")
    page.locator("tbody a").first.click()
    expect(page.get_by_role("img", name=re.compile("The picture of sample"))).to_be_visible()
    expect(page.locator(".stage img").first).to_have_js_property("naturalWidth", 96)
    shoot(page, "sample")
    slider = page.get_by_role("slider", name="Opacity of the heat map")
    opacity = "getComputedStyle(document.getElementById('heat')).opacity"
    assert page.evaluate(opacity) == "0.6"
    slider.focus()
    page.keyboard.press("Home")
    assert page.evaluate(opacity) == "0", "arrow and home keys are the slider's while it has focus"
    expect(page.locator("#opacity")).to_have_text("0 %")
    page.keyboard.press("End")
    assert page.evaluate(opacity) == "1"
    place = page.get_by_role("checkbox", name="Place of the recovered trigger")
    expect(page.locator("#place")).to_be_visible()
    place.press("Space")
    expect(page.locator("#place")).to_be_hidden()
    first = page.url
    slider.blur()
    place.blur()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda now: now != first)
    assert page.evaluate(opacity) == "1", "the opacity stays from sample to sample"
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(first)
    assert said == []


def test_the_report_is_read_whole(page, api, url, said, shoot):
    job_id = finished_job(api)
    page.goto(f"{url}/ui/jobs/{job_id}/report")
    for text in (
        "93.0 % (186/200",
        "92.0 (88.0 to 95.0) points",
        "AML.T0020",
        "LLM04",
        "1.0 % (2/200",
        "evaluate after: clean",
    ):
        expect(page.get_by_text(text).first).to_be_visible()
    pattern = page.get_by_role("img", name="The recovered pattern")
    expect(pattern).to_be_visible()
    shoot(page, "report")
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(page, api, url, said, shoot, scheme):
    job_id = finished_job(api)
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    base = f"{url}/ui/jobs/{job_id}"
    for name, address in {
        "jobs": f"{url}/ui/jobs", "job": base, "samples": f"{base}/samples?shown=flagged",
        "sample": f"{base}/samples/0", "report": f"{base}/report",
    }.items():  # fmt: skip
        page.goto(address)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{name} is {wide} pixels wide"
        shoot(page, f"phone-{scheme}-{name}")
    assert said == []


def test_everything_is_reached_by_the_tab_key_and_named(page, api, url, said):
    job_id = finished_job(api)
    for path in ("", "/samples?shown=flagged", "/samples/0", "/report"):
        page.goto(f"{url}/ui/jobs/{job_id}{path}")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("a, button, input, img, [role=img]")]
              .filter((e) => !(e.innerText || e.alt || e.ariaLabel || e.value ||
                e.closest("label") || e.alt === "" || e.type === "hidden"))
              .map((e) => e.outerHTML)"""
        )
        assert nameless == []
        assert page.locator("h1").count() == 1
    assert said == []


def contrast(page: Page) -> list[str]:
    """Texts whose contrast with what lies behind them is below WCAG AA's 4.5."""
    return page.evaluate(
        """() => {
          const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (e) => {
            for (let at = e; at; at = at.parentElement) {
              const c = parse(getComputedStyle(at).backgroundColor);
              if (c.length === 3 || c[3] === 1) return c;
            }
            return [255, 255, 255];
          };
          const poor = [];
          for (const e of document.querySelectorAll("main *")) {
            const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
            if (!text || e.closest(".unseen")) continue;
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 90)}`);
          }
          return poor;
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_lies_behind_it(page, api, url, scheme):
    job_id = finished_job(api)
    page.emulate_media(color_scheme=scheme)
    base = f"{url}/ui/jobs/{job_id}"
    for address in (f"{url}/ui/jobs", base, f"{base}/samples", f"{base}/samples/0",
                    f"{base}/report"):  # fmt: skip
        page.goto(address)
        assert contrast(page) == [], address
