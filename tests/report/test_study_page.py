"""The page of a study: what was measured, and nothing that a name could smuggle in."""

import io

from rich.console import Console

from sami_jax.report import study
from sami_jax.report.study import MAIN, OF_METHOD, OF_SET, cells, print_study, write_page

ROW = {
    "responses": 8,
    "following": 0.8125,
    "following_interval": [0.5, 0.95],
    "following_by_seed": {"0": 0.625, "1": 1.0},
    "win_rate": 0.75,
    "win_rate_interval": [0.4, 0.93],
    "win_rate_at_equal_length": None,
    "strength": 0.5,
    "well_formed": 0.98,
    "distinct_2_of_a_prompt": 0.555,
    "entropy_2": 3.456,
    "perplexity": 7.891,
    "kept_logprob_change": -0.123,
    "mi_posterior_bound": 0.31,
    "mean_tokens": 20.04,
    "forward_tokens": 1_234_567.0,
    "seconds": 65.4,
    "stopped_by_canaries": [1],
}
UNJUDGED = {
    name: ROW[name]
    for name in ("responses", "distinct_2_of_a_prompt", "entropy_2", "mi_posterior_bound", "mean_tokens")
}


def test_cells():
    shown = ["81.2 % (50-95)", "75.0 % (40-93)", "+0.50", "98.0 %", "0.310", "20.0", "-", "62.5, 100.0 (1 stopped)"]
    assert cells(ROW, OF_SET) == shown
    assert cells(ROW, OF_METHOD) == ["0.555", "3.46", "7.89", "-0.12", "1.23 M", "65"]
    unjudged = UNJUDGED | {"stopped_by_canaries": [], "forward_tokens": 0, "seconds": 0}
    assert cells(unjudged, OF_SET) == ["-", "-", "-", "-", "0.310", "20.0", "-", "-"]
    assert cells(unjudged, OF_METHOD) == ["0.555", "3.46", "-", "-", "-", "-"]


def test_the_page_has_tables_and_choices(tmp_path):
    grid = [
        {"rate": 0.5, "beta": 1.0, "kl_weight": 0.1, "mi_posterior_bound": 0.2},
        {"rate": 1.0, "beta": 1.0, "kl_weight": 0.1, "mi_posterior_bound": 0.3},
    ]
    found = {
        "chosen": {
            "sami": {"rate": 1.0, "beta": 1.0, "kl_weight": 0.1, "grid": grid},
            "sft": {"rate": 2.0, "beta": 1.0, "kl_weight": 0.1, "grid": []},
        },
        "sets": {"trained": {"base": ROW, "<script>": ROW}},
    }
    page = write_page(found, tmp_path).read_text(encoding="utf-8")
    assert "Held-out queries, trained principles: 8 responses each" in page and "81.2 % (50-95)" in page
    assert "<script>" not in page and "&lt;script&gt;" in page and page.count("<td>yes</td>") == 1
    assert page.count("<td>given</td>") == 1 and "<td>2</td><td>1</td><td>0.1</td><td>-</td>" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_terminal_of_a_hundred_columns_has_room(monkeypatch):
    found = {"chosen": {}, "sets": {"trained": {"base": ROW, "sami-base": ROW}}}
    console = Console(width=100, record=True, file=io.StringIO())
    monkeypatch.setattr(study, "show_table", console.print)
    print_study(found)
    told = console.export_text()
    for column in (*MAIN, *OF_METHOD):
        assert column in told
    assert "sami-base" in told and "…" not in told
