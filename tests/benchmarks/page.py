"""What the decision page of 10,000 trials costs: seconds to make it and to open it in Chromium, bytes, elements.

Run it from the checkout: ``python tests/benchmarks/page.py``; it prints a line for each number of trials, beside a run of 40.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from helpers.browser import Opened, browser  # noqa: E402

from joulefront.search.report.page import report_html  # noqa: E402


def main() -> None:
    """Make and open the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    help_ = "configurations of each run; they have two to three trials each"
    parser.add_argument("--configs", type=int, nargs="+", default=[14, 450, 4450], help=help_)
    configs = parser.parse_args().configs
    spec = importlib.util.spec_from_file_location("runs", HERE.parent / "search" / "report" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runs)
    print(f"{'trials':>8}{'made s':>9}{'CPU s':>8}{'opened s':>10}{'MB':>7}{'elements':>10}")
    with tempfile.TemporaryDirectory() as folder, browser() as chrome:
        for count in (configs[0], *configs):  # the first one also loads the libraries
            run = runs.make_run(configs=count)
            begin, cpu = time.perf_counter(), time.process_time()
            path = report_html(run, Path(folder) / "page.html")
            made, cpu = time.perf_counter() - begin, time.process_time() - cpu
            begin = time.perf_counter()
            with Opened(chrome, path) as opened:
                opened.page.wait_for_selector("#members tbody tr")
                seconds, elements = time.perf_counter() - begin, opened.page.evaluate("document.querySelectorAll('*').length")
            print(f"{len(run.trials):>8}{made:>9.2f}{cpu:>8.2f}{seconds:>10.2f}{path.stat().st_size / 1e6:>7.2f}{elements:>10}")


if __name__ == "__main__":
    main()
