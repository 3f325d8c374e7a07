"""The report page, for a reader whose dataset wants to speak to him."""

from pathlib import Path
from typing import Any

from disp_engine.gate import Comparison
from disp_engine.report.page import MEASURES, write_page

SCRIPT = "<script>alert(1)</script>"
TEXT = f'"><img src=x onerror=alert(1)>{SCRIPT}{{{{ 7 * 7 }}}}'


def report_saying(text: str) -> dict[str, Any]:
    return {
        "model": text,
        "settings": {"method": "disp", "hyperparameters": {"masking": text, "mask_ratio": 0.3}},
        "seeds": {"run": 0},
        "evaluation": {side: dict.fromkeys(MEASURES) for side in ("before", "after")},
        "cost": {"clean_performance_points": None, "token_agreement_points": None},
        "samples": {"total": 1},
        "quarantined": [{"id": text, "reason": text}],
        "stages": [{"name": "ingest", "seconds": 1.0, "reused": False}],
        "saliency": {text: text},
        "versions": {},
        "hashes": {},
        "content_sha256": "0" * 64,
    }


def test_whatever_a_dataset_says_is_text_on_the_page(tmp_path: Path) -> None:
    write_page(report_saying(TEXT), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "<script" not in page and "<img" not in page
    assert "{{ 7 * 7 }}" in page and ">49" not in page


def test_a_shortcut_is_shown_with_its_bound_or_as_not_taken(tmp_path: Path) -> None:
    report = report_saying("plain")
    found = {"purify: purify": Comparison(59, 0), "evaluate_after: clean": Comparison(8, 2)}
    report["settings"]["shortcuts"] = {name: one.to_json() for name, one in found.items()}
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<td>59</td><td>0</td><td>yes</td><td>5.0 %</td>" in page
    assert "<td>8</td><td>2</td><td>no</td><td>–</td>" in page
