import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sample
from rich.console import Console

from edgekd.core.verdicts import CONSTRAINTS
from edgekd.records import Accuracy, Budget, Report
from edgekd.report import print_measurement, print_report, render_html, render_json
from edgekd.report.html import gauge
from edgekd.report.wording import (
    OUTCOME_WORDS,
    headline,
    interval_text,
    limit_text,
    margin_text,
    number,
    plain,
    quantity,
    reasons,
)

REPORTS = {
    "fit": sample.report(),
    "met": sample.report(sample.measurement()),
    "missed": sample.report(sample.measurement(slowdown=1.7)),
    "another board": sample.report(
        sample.measurement(matches_profile=None, mismatch_reason="it is an x86-64 laptop"), matches=False
    ),
    "throttled": sample.report(sample.measurement(throttled=True)),
    "no power, no state": sample.report(
        sample.measurement(power=None, states=(), throttled=None, accuracy=None, cold_start_ms=None, facts={})
    ),
    "hostile": sample.report(sample.measurement(hostile=sample.HOSTILE), hostile=sample.HOSTILE),
    "with notes": sample.report(sample.measurement(notes=("3 of 500 test inputs differ",))),
    "one process": sample.report(sample.measurement(processes=1)),
    "no samples": sample.report(
        sample.measurement().model_copy(update={"samples_ms": (), "sample_times_s": (), "sample_processes": ()})
    ),
    "taught": sample.report(**sample.taught()),
    "taught by hostile names": sample.report(hostile=sample.HOSTILE, **sample.taught(sample.HOSTILE)),
    "nothing": sample.report(
        budget=Budget(), student=None, artifacts=(), accuracy=Accuracy(), parity=(), stages=(), warnings=(), data={}
    ),
}
every_report = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS.keys())


class Page(HTMLParser):
    """What a browser would see of a page: its text, its tags, its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "link", "br", "path", "use"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def printed(report: Report, width: int, **options: object) -> str:
    console = Console(width=width, record=True, file=io.StringIO(), **options)  # type: ignore[arg-type]
    print_report(report, console)
    return console.export_text(styles=False)


def words(text: str) -> str:
    return " ".join(text.split())


class TestPage:
    @every_report
    def test_every_verdict_reason_and_number_is_there(self, report: Report) -> None:
        text = Page(render_html(report)).text
        head = headline(report)
        assert words(head.title) in text
        assert words(plain(head.evidence)) in text
        for verdict in report.verdicts:
            assert CONSTRAINTS[verdict.constraint].title in text
            assert OUTCOME_WORDS[verdict.outcome] in text
            assert limit_text(verdict) in text
            assert words(plain(verdict.reason)) in text
            assert quantity(verdict.constraint, verdict.value) in text
            if verdict.interval:
                assert interval_text(verdict.constraint, verdict.interval) in text
                assert margin_text(verdict) in text
        for artifact in report.artifacts:
            assert artifact.path in text
            assert artifact.sha256[:16] in text
        notes = report.measurement.notes if report.measurement else ()
        for warning in report.warnings + notes:
            assert words(plain(warning)) in text

    @every_report
    def test_it_is_well_formed_and_needs_nothing_from_elsewhere(self, report: Report) -> None:
        html = render_html(report)
        page = Page(html)
        assert page.open == []
        assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & set(page.tags)
        assert not re.search(r"https?:|//\w|@import|javascript:", html, flags=re.IGNORECASE)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert all(re.match(r"url\(#", found) for found in re.findall(r"url\([^)]*\)", html))
        assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "xlink:href", "src"))

    def test_hostile_strings_are_text(self) -> None:
        html = render_html(REPORTS["hostile"])
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)

    def test_the_plots_follow_the_page(self) -> None:
        html = render_html(REPORTS["met"])
        assert html.count("<svg") == 4
        assert "var(--accent)" in html
        assert "#0101" not in html

    def test_a_run_without_a_board_has_no_latency_plot(self) -> None:
        html = render_html(REPORTS["fit"])
        assert html.count("<svg") == 1
        assert "No board has measured this student" in html

    def test_the_same_report_gives_the_same_page(self) -> None:
        assert render_html(REPORTS["met"]) == render_html(REPORTS["met"])

    def test_a_limit_far_away_is_told_in_words(self) -> None:
        report = sample.report(sample.measurement(), budget=Budget(latency_p90_ms=400))
        assert "Limits beyond the plot: p90 400 ms" in Page(render_html(report)).text

    def test_twenty_thousand_samples_stay_a_small_page(self) -> None:
        assert len(render_html(sample.report(sample.measurement(runs=20_000)))) < 600_000

    def test_the_gauge_shows_the_outcome(self) -> None:
        for report in REPORTS.values():
            for verdict in report.verdicts:
                drawn = gauge(verdict)
                if drawn is None or verdict.outcome not in ("met", "missed"):
                    continue
                inside = drawn.good_from <= drawn.low and drawn.high <= drawn.good_to
                assert inside == (verdict.outcome == "met")
                assert 0 <= drawn.low <= drawn.value <= drawn.high <= 100


class TestTerminal:
    @every_report
    @pytest.mark.parametrize("width", [60, 80, 140])
    def test_every_verdict_is_there_in_words(self, report: Report, width: int) -> None:
        text = printed(report, width)
        assert max(len(line) for line in text.splitlines()) <= width
        flat = words(text)
        assert words(headline(report).title) in flat
        for constraints, reason in reasons(report.verdicts):
            assert words(constraints.split(", ")[0]) in flat
            # A long foreign word may be broken anywhere; its letters must all be there.
            assert "".join(reason.split()) in "".join(text.split())
        for verdict in report.verdicts:
            assert limit_text(verdict).split()[1] in flat
            assert number(verdict.limit) in flat or quantity(verdict.constraint, verdict.limit).split()[0] in flat

    @pytest.mark.parametrize("width", [80, 140])
    def test_the_row_of_a_verdict(self, width: int) -> None:
        for verdict in REPORTS["missed"].verdicts:
            line = next(
                line
                for line in printed(REPORTS["missed"], width).splitlines()
                if line.startswith(CONSTRAINTS[verdict.constraint].title.split()[0]) and limit_text(verdict) in line
            )
            assert quantity(verdict.constraint, verdict.value) in line
            assert margin_text(verdict) in line
            assert "measured" in line
            assert OUTCOME_WORDS[verdict.outcome] in line

    def test_a_file_measured_on_its_own(self) -> None:
        console = Console(width=100, record=True, file=io.StringIO())
        found = sample.measurement(notes=("the clock was not stable",))
        print_measurement(found, (), console)
        text = words(console.export_text(styles=False))
        assert "4 threads" in text
        assert "Constraint" not in text
        assert "the clock was not stable" in text
        print_measurement(found, REPORTS["missed"].verdicts, console)
        assert "missed" in console.export_text(styles=False)

    def test_escape_codes_of_a_board_do_not_reach_the_terminal(self) -> None:
        text = printed(REPORTS["hostile"], 200, force_terminal=False)
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text

    def test_runtime_and_threads_stand_beside_each_latency(self) -> None:
        lines = [line for line in printed(REPORTS["met"], 120).splitlines() if re.match(r"p(50|90|99) ", line)]
        assert len(lines) == 3
        assert all("tflite 2.3.0" in line and line.rstrip().endswith("4") for line in lines)

    def test_no_colour_without_a_terminal_or_with_no_color(self) -> None:
        script = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "import sample\n"
            "from rich.console import Console\n"
            "from edgekd.report import print_report\n"
            "print_report(sample.report(), Console(force_terminal=sys.argv[2] == 'tty'))\n"
        )
        folder = str(Path(sample.__file__).parent)
        for kind, environment, colour in (("pipe", {}, False), ("tty", {"NO_COLOR": "1"}, False), ("tty", {}, True)):
            base = {"PATH": "/usr/bin", "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
            done = subprocess.run(
                [sys.executable, "-c", script, folder, kind],
                env=base | environment,
                capture_output=True,
                text=True,
                check=True,
            )
            # NO_COLOR bars colours (30 to 37), not bold type.
            assert bool(re.search(r"\x1b\[[0-9;]*3[1-7]m", done.stdout)) == colour


class TestJson:
    @every_report
    def test_it_round_trips(self, report: Report) -> None:
        assert Report.model_validate_json(render_json(report)) == report


class TestWording:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0, "0"),
            (4.0, "4.00"),
            (12.345, "12.3"),
            (123.45, "123"),
            (1234.5, "1,234"),
            (0.0123, "0.0123"),
            (0.5, "0.500"),
            (-1.5, "-1.50"),
            (1e-9, "1.00e-09"),
        ],
    )
    def test_numbers(self, value: float, text: str) -> None:
        assert number(value) == text

    def test_the_headline_tells_prediction_from_measurement(self) -> None:
        budget = Budget(latency_p90_ms=50, accuracy_min=0.7)
        predicted = headline(sample.report(budget=budget))
        assert (predicted.outcome, predicted.title) == ("met", "Budget met, as far as predicted")
        assert "no board has measured" in predicted.evidence
        measured = headline(sample.report(sample.measurement(), budget=budget))
        assert (measured.outcome, measured.title) == ("met", "Budget met")
        assert "pi@rack-3" in measured.evidence
        assert "4 threads" in measured.evidence
        required = headline(sample.report(budget=budget, exit_code=6))
        assert required.outcome == "not_measured"
        assert "required" in required.title

    def test_nothing_judged_is_no_pass(self) -> None:
        assert headline(REPORTS["nothing"]).outcome == "not_measured"


def test_importing_the_report_loads_no_plotting() -> None:
    script = "import sys, edgekd.report; sys.exit(bool({'matplotlib', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_energy_shows_gross_net_idle_interval_and_grade_in_both_forms():
    made = sample.report(sample.measurement())
    page = render_html(made)
    console = Console(file=io.StringIO(), width=160)
    print_report(made, console)
    text = console.file.getvalue()
    for shown in (page, text):
        for words in ("16.9 mJ per inference gross", "8.40 mJ net of idle", "idle 2.70 W", "grade B", "bit-exact"):
            assert words in shown, words
        assert "others interrupted at most 0.400 %" in shown
    assert "Power over the energy pass" in page
    assert "QLinearConv" in page


def test_a_problem_of_the_meter_stands_beside_its_figures_and_blocks_the_verdict():
    power = sample.measurement().power.model_copy(update={"problems": ("the meter is stuck: every reading is 4 W",)})
    made = sample.report(sample.measurement(power=power))
    (verdict,) = [verdict for verdict in made.verdicts if verdict.constraint == "energy_mj"]
    assert verdict.outcome == "inconclusive"
    assert "stuck" in verdict.reason
    assert "not to be judged on: the meter is stuck" in render_html(made)


def test_units_are_shown_one_by_one():
    units = (sample.measurement(), sample.measurement(board="pi@rack-4", slowdown=1.1))
    made = sample.report(units[0], units=units)
    page = render_html(made)
    console = Console(file=io.StringIO(), width=160)
    print_report(made, console)
    for shown in (page, console.file.getvalue()):
        assert "pi@rack-3" in shown
        assert "pi@rack-4" in shown


def test_what_distilling_and_rounding_did_stands_in_both_forms():
    report = REPORTS["taught"]
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=200))
    shown, page = stream.getvalue(), render_html(report)
    for text in (shown, page):
        assert "kept: the student from scratch" in text
        assert "QAT was run: --qat always" in text
        assert "not better, not kept" in text
        assert "hinton alone" in text
        assert "Student distilled (not kept)" in text
    assert "6 more slices lost less" in shown
    assert page.count("<tr><td>class ") == 20
    assert "dropped: latency_p90_ms 2.5 is over 2" in page and ">no</td>" in page
    assert "Where accuracy goes: layer by layer" in page
