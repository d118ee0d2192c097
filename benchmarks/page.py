"""Duration of a report of a hundred thousand records, and of its page's answers.

    python benchmarks/page.py [--measured steady|all] [--runs 3] [--out FILE]

Draws a run (1,000 cases and modes under ten implementations, ten blocks, 30 samples a record), runs
`python -m bench report` on it, and opens the page in a headless Chromium, where each filter is
chosen in turn: an answer is from the change of the checkbox to the next frame that is painted, with
tables and the plots in sight drawn anew. Goals: the command within 10 s and 1 GB, the page below
5 MB, an answer within 0.2 s.

Needs `chromium`, `chromedriver` and `pip install selenium`; takes a minute or two.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench.measure import clock
from benchmarks import instrument
from tests import synthetic_large

#: Ticks the nth box of a dimension, waits until what is in sight is drawn, and for the next frame.
_ANSWER = """
const [name, number, scroll, done] = arguments;
if (scroll) document.querySelector(scroll).scrollIntoView();
setTimeout(() => {
  const boxes = [...document.querySelectorAll("#filters input")].filter((b) => b.name === name);
  const box = boxes[number];
  const start = performance.now();
  box.click();
  const drawn = STATES.filter((state) => state.busy).map((state) => state.busy);
  Promise.all(drawn).then(() => requestAnimationFrame(() => setTimeout(() => {
    const took = performance.now() - start;
    box.click();
    done(took);
  }, 0)));
}, 400);
"""


def command(folder: Path, out: Path) -> dict[str, float]:
    """Seconds and bytes of one `report` in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = clock()
    subprocess.run(
        [sys.executable, "-m", "bench", "report", str(folder), "--out", str(out)],
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.DEVNULL,
    )
    elapsed_s = (clock() - start) / 1e9
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "elapsed_s": elapsed_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_bytes": after.ru_maxrss * 1024,
        "page_bytes": (out / "index.html").stat().st_size,
    }


def answers(page: Path) -> list[dict[str, Any]]:
    """Duration of the page's answer for each dimension, at its tables and at its plots."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as browser:
        browser.set_script_timeout(60)
        browser.get(page.as_uri())
        names = browser.execute_script("return DATA.dimensions.map((d) => d.name)")
        return [
            {
                "filter": name,
                "at": where or "top",
                "answer_s": browser.execute_async_script(_ANSWER, name, number, where) / 1e3,
            }
            for where in ("", "[data-table=latency]", "[data-plot=latency]")
            for name in names
            for number in (0, 1)
        ]


def main() -> None:
    parser = instrument.options(__doc__, "page")
    parser.add_argument("--measured", choices=["steady", "all"], default="steady")
    parser.add_argument("--runs", type=instrument.count, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = synthetic_large.write(
            folder / "run", synthetic_large.sweep(measured=options.measured)
        )
        size = (folder / "run" / "records.jsonl").stat().st_size
        print(f"{records:,} records, {size / 1e6:.0f} MB")
        reports = [command(folder / "run", folder / "out") for _ in range(options.runs)]
        answered = answers(folder / "out" / "index.html")
    instrument.print_table(
        [
            {
                "report (s)": f"{found['elapsed_s']:.1f}",
                "of CPU (s)": f"{found['cpu_s']:.1f}",
                "peak (MB)": f"{found['peak_bytes'] / 1e6:.0f}",
                "page (MB)": f"{found['page_bytes'] / 1e6:.2f}",
            }
            for found in reports
        ]
    )
    times = [found["answer_s"] for found in answered]
    print(f"a filter: median {1e3 * median(times):.0f} ms, at most {1e3 * max(times):.0f} ms")
    instrument.write(
        options.out,
        settings={"measured": options.measured, "records": records, "bytes": size},
        rows=answered,
        reports=reports,
    )


if __name__ == "__main__":
    instrument.run_script(main)
