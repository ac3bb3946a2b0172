"""Pages of one SAE: seconds and bytes; and how fast a table of 36,000 latents answers in Chromium.

    PYTHONPATH=workflow .venv/bin/python benchmarks/site.py --sae smollm2-135m/resid_post.4/chat/topk/seed-0

Reads what ``snakemake results/atlas/index.html`` made for that SAE, and builds its pages again in a temporary folder.
Targets: 1,200 latents in 60 s on 2 cores, 20 KiB a latent. `cpu` is the process' own time, which a busy machine does
not stretch. Without chromium and chromedriver the table is left out, and the output says so. Ends with a line of JSON.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from atlas.config.site import Site
from atlas.config.study import Taxonomy
from atlas.site.pages import copy_assets, write_data
from atlas.site.run import SaePageContext, SiteInputs, build_sae_pages
from atlas.site.sae import SaePageFiles
from atlas.site.tables import TableFiles

MANY = 36_000
# Milliseconds from a change of the table to its drawing, as the page itself sees them.
TIMED = """
const [sort, search, scroll] = [0, 1, 2].map(() => []), time = (into, work) => {
  const start = performance.now(); work(); document.body.offsetHeight; into.push(performance.now() - start); };
const field = document.querySelector("#search");
for (const key of ["density", "label", "score", "cosine", "id"])
  time(sort, () => document.querySelector(`[data-key=${key}] button`).click());
for (const text of ["a", "ab", "problem", "7", ""])
  time(search, () => { field.value = text; field.dispatchEvent(new Event("input")); });
const middle = (values) => values.sort((a, b) => a - b)[2];
return {sort_ms: middle(sort), sort_ms_max: Math.max(...sort), search_ms: middle(search),
  search_ms_max: Math.max(...search), rows: document.querySelectorAll("#table .body .r").length};
"""


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "saes" / arguments.sae
        wall, cpu = time.perf_counter(), time.process_time()
        files = inputs(arguments.results, arguments.sae)
        build_sae_pages(*files, place(arguments.sae), Site(), Taxonomy(), target)
        result = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        sizes = [page.stat().st_size / 1024 for page in (target / "latents").glob("*.html")]
        result |= {"latents": len(sizes), "kib_mean": sum(sizes) / len(sizes), "kib_max": max(sizes)}
        copy_assets(Path(folder) / "assets")
        result["table_of_36000"] = table(target)
    print(json.dumps(result))


def inputs(results: Path, sae: str) -> tuple[SiteInputs, SaePageFiles]:
    """Files of an SAE where the workflow has them."""
    files, seedless, labels = results / "saes" / sae, str(Path(sae).parent), results / "autointerp" / sae
    latents, stability = results / "latents" / sae, results / "stability" / seedless
    metrics = results / "metrics" / sae / "metrics.json"
    corpora = list(json.loads(metrics.read_text())["corpora"])
    facts = metrics, latents / "latents.json", stability / "stability.json"
    own = SiteInputs(
        results / "models" / sae.split("/")[0],
        files,
        {corpus: results / "codes" / sae / f"{corpus}.h5" for corpus in corpora},
        TableFiles(
            latents / "latents.parquet",
            stability / "latents.parquet",
            labels / "latents.parquet",
            labels / "answers.parquet",
        ),
    )
    return own, SaePageFiles(*facts, files / "run_card.yaml", files / "training.parquet", labels / "autointerp.json")


def place(sae: str) -> SaePageContext:
    """Hook and seed of an SAE's id."""
    _, hook, _, _, seed = sae.split("/")
    return SaePageContext(hook, int(seed.removeprefix("seed-")), ("benchmark",), ())


def table(folder: Path) -> dict[str, float] | str:
    """The SAE's own latents again and again, 36,000 of them, in its page."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return "not measured: chromium and chromedriver are not installed"
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    data = folder / "latents-data.js"
    columns = json.loads(data.read_text().removeprefix("var atlasLatents=").removesuffix(";\n"))
    times = -(-MANY // len(columns["label"]))
    for name, values in columns.items():
        if isinstance(values, list) and name != "outcomes":
            columns[name] = (values * times)[:MANY]
    write_data(data, "atlasLatents", columns)
    options = ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    opened = Chrome(options=options, service=Service(driver))
    try:
        started = time.perf_counter()
        opened.get((folder / "index.html").as_uri())
        loaded = time.perf_counter() - started
        return {"data_mib": data.stat().st_size / 2**20, "load_s": loaded} | opened.execute_script(TIMED)
    finally:
        opened.quit()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the workflow's results")
    parser.add_argument("--sae", required=True, help="id of an SAE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
