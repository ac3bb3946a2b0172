from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, 0):
    from atlas.autointerp.outcome import Deciding
    from atlas.config.site import Site
    from atlas.config.study import Taxonomy
    from atlas.site.effects import EffectFiles
    from atlas.site.run import SaePageContext, SiteInputs, build_sae_pages
    from atlas.site.sae import SaePageFiles
    from atlas.site.tables import AllLabels, TableFiles

    files, params = snakemake.input, snakemake.params
    keys = ("labels", "answers", "label_summary", "all_labels", "scores", "tokens")
    label = {key: Path(files[key][0]) if files[key] else None for key in keys}
    explainer, scorers, seed = params.deciding
    deciding = Deciding(explainer, tuple(scorers), seed)
    every = AllLabels(*(label[key] for key in keys[3:]), deciding) if label["labels"] else None
    build_sae_pages(
        SiteInputs(
            model=Path(files.model),
            sae=Path(files.weights).parent,
            codes=dict(zip(params.corpora, map(Path, files.codes), strict=True)),
            tables=TableFiles(Path(files.latents), Path(files.partners), label["labels"], label["answers"], every),
            random_codes=dict(zip(params.corpora, map(Path, files.random), strict=True)) if files.random else {},
            effects=EffectFiles(*map(Path, files.effects)) if files.effects else None,
        ),
        SaePageFiles(
            *(Path(files[key]) for key in ("metrics", "summary", "stability", "card")),
            Path(files.curves[0]) if files.curves else None,
            label["label_summary"],
            Path(files.twins[0]) if files.twins else None,
            Path(files.usefulness[0]) if files.usefulness else None,
        ),
        SaePageContext(
            snakemake.wildcards.hook, int(snakemake.wildcards.seed), tuple(params.studies), tuple(params.seeds)
        ),
        Site(**params.site),
        Taxonomy(**params.taxonomy),
        Path(snakemake.output.folder),
    )
