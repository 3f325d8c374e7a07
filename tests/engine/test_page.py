"""The report page, for a reader whose dataset wants to speak to him."""

from pathlib import Path

from disp_engine.report.page import MEASURES, write_page

SCRIPT = "<script>alert(1)</script>"
TEXT = f'"><img src=x onerror=alert(1)>{SCRIPT}{{{{ 7 * 7 }}}}'


def test_whatever_a_dataset_says_is_text_on_the_page(tmp_path: Path) -> None:
    report = {
        "model": TEXT,
        "settings": {"method": "disp", "hyperparameters": {"masking": TEXT, "mask_ratio": 0.3}},
        "seeds": {"run": 0},
        "evaluation": {side: dict.fromkeys(MEASURES) for side in ("before", "after")},
        "cost": {"clean_performance_points": None, "token_agreement_points": None},
        "samples": {"total": 1},
        "quarantined": [{"id": TEXT, "reason": TEXT}],
        "stages": [{"name": "ingest", "seconds": 1.0, "reused": False}],
        "saliency": {TEXT: TEXT},
        "versions": {},
        "hashes": {},
        "content_sha256": "0" * 64,
    }
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "<script" not in page and "<img" not in page
    assert "{{ 7 * 7 }}" in page and ">49" not in page
