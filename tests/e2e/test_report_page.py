"""The report in a real browser: it draws, answers to mouse and keyboard, and can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adios_tme.viz.panels import PANELS
from adios_tme.viz.report.page import write_report
from tests.browser import CHROMIUM, Page, browser
from tests.run_folders import HOSTILE, line_of, make_run_folder, nuclei_results, write_lines

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

WIDTHS = (1440, 360)
THEMES = ("light", "dark")

#: Contrast of text with what is behind it, and which text has less than WCAG 2.2 AA asks for: 4.5
#: to 1, or 3 to 1 where it is large. Backgrounds are plain colours, with none above another's text.
CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (["SCRIPT", "STYLE"].includes(element.tagName) || element.disabled) continue;
    const [a, b] = [light(parse(style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const px = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    seen += 1;
    const least = px >= 24 || (bold && px >= 18.66) ? 3 : 4.5;
    if (ratio < least) faint.push([element.outerHTML, ratio]);
  }
  return [seen, faint];
})()
"""

SHIFT = """
new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const each of list.getEntries()) sum += each.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 100);
})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of one run, and one of two whose names are hostile."""
    folder = tmp_path_factory.mktemp("reports")
    run = make_run_folder(folder / "run", lr=0.25)
    faulty = {"mask_overlap": 0.97}
    write_lines(run, [line_of(at, **faulty) for at in range(10, 210, 10)])
    (run / "nuclei_benchmark.json").write_text(json.dumps(nuclei_results(0.5, 0.6)))
    write_report([run], folder / "one.html")
    hostile = make_run_folder(folder / HOSTILE.replace("/", ""))
    write_report([run, hostile], folder / "two.html")
    return folder


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def middle(page: Page, selector: str, share: float = 0.5) -> tuple[float, float]:
    """A place in an element that is scrolled to, at a share of its width."""
    box = page.js(
        f"(() => {{ const e = document.querySelector({selector!r});"
        "e.scrollIntoView({ block: 'center', behavior: 'instant' });"
        "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    return box[0] + share * box[2], box[1] + box[3] / 2


def iteration_under(page: Page, share: float) -> int:
    """What the first chart's legend says where the mouse points."""
    x, y = middle(page, ".u-over", share)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.js("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(page.js("document.querySelector('.u-legend .u-value').textContent"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["one.html", "two.html"])
def test_it_can_be_read_at_any_width_in_both_themes(
    name: str, theme: str, width: int, folder: Path, page: Page
) -> None:
    page.open(folder / name, width, theme=theme)
    page.js("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    seen, faint = page.js(CONTRAST)
    assert seen > 200
    assert faint == []
    assert page.js("document.documentElement.scrollWidth") <= width  # nothing sticks out
    dark = page.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (theme == "dark")
    logged = line_of(10).keys()
    drawn = [panel for panel in PANELS if not logged.isdisjoint(panel.metrics)]
    assert page.js("document.querySelectorAll('.u-wrap canvas').length") == len(drawn) > 10
    assert page.js("window.hit === undefined")
    assert page.errors == []
    assert {url for url in page.requests if not url.startswith("data:")} <= {
        (folder / each).as_uri() for each in ("one.html", "two.html")
    }


def test_faint_text_would_be_noticed(folder: Path, page: Page) -> None:
    page.open(folder / "one.html", 1440)
    page.js("document.querySelector('h1').style.color = '#999999'")
    _, faint = page.js(CONTRAST)
    assert ["<h1" in html for html, _ in faint] == [True]


def test_the_slider_goes_through_the_masks(folder: Path, page: Page) -> None:
    page.open(folder / "one.html", 1440)
    state = "[document.querySelector('.slider output').textContent, picture.src.slice(-40)]"
    state = f"(() => {{ const picture = document.querySelector('img.masks'); return {state}; }})()"
    seen = [page.js(state)]
    page.js("document.querySelector('.slider input').focus()")
    page.press("ArrowLeft")
    seen.append(page.js(state))
    page.js("document.querySelector('.slider .back').click()")
    seen.append(page.js(state))
    page.js("document.querySelector('.slider .on').click()")
    seen.append(page.js(state))
    said, pictures = zip(*seen, strict=True)
    assert said == ("iteration 200", "iteration 150", "iteration 100", "iteration 150")
    assert len(set(pictures)) == 3
    assert page.js(SHIFT) < 0.01
    assert page.errors == []


def test_curves_are_hovered_and_zoomed_together(folder: Path, page: Page) -> None:
    page.open(folder / "one.html", 1440)
    disabled = "document.getElementById('everything').disabled"
    assert iteration_under(page, 0.005) == 10
    assert page.js(disabled)
    page.drag(middle(page, ".u-over", 0.5), middle(page, ".u-over", 0.75))
    assert not page.js(disabled)
    assert 100 <= iteration_under(page, 0.01) <= 120  # the first chart shows that part alone
    page.js("document.getElementById('everything').click()")
    assert iteration_under(page, 0.005) == 10
    assert page.js(SHIFT) < 0.01
    assert page.errors == []


def test_curves_answer_to_the_keyboard(folder: Path, page: Page) -> None:
    page.open(folder / "one.html", 1440)
    page.js("document.querySelector('.plot').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    said = page.js("document.getElementById('value-0').textContent")
    assert said == "Iteration 20: student loss 4.8"
    disabled = "document.getElementById('everything').disabled"
    page.press("+")
    assert not page.js(disabled)
    page.press("Escape")
    assert page.js(disabled)
    page.js("document.querySelector('.u-series:not(:first-child) th').focus()")
    page.press("Enter")
    assert page.js("document.querySelectorAll('.u-series.u-off').length") == 1


def test_the_theme_is_switched_and_kept(folder: Path, page: Page) -> None:
    page.open(folder / "one.html", 1440, theme="dark")
    look = (
        "[document.getElementById('theme').textContent,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    seen = []
    for _ in range(3):
        seen.append(tuple(page.js(look)))
        page.js("document.getElementById('theme').click()")
    dark, light = "rgb(20, 23, 27)", "rgb(255, 255, 255)"
    assert seen == [
        ("Theme: as the system", dark),
        ("Theme: light", light),
        ("Theme: dark", dark),
    ]
    page.js("document.getElementById('theme').click()")
    page.open(folder / "one.html", 1440, theme="dark")
    assert page.js(look) == ["Theme: light", light]
    page.js("localStorage.clear()")
