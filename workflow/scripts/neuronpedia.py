from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, 0):
    from atlas.config.site import Site
    from atlas.site.run import Place, SiteInputs, export_neuronpedia
    from atlas.site.tables import TableFiles

    files, params = snakemake.input, snakemake.params
    export_neuronpedia(
        SiteInputs(
            model=Path(files.model),
            sae=Path(files.weights).parent,
            codes=dict(zip(params.corpora, map(Path, files.codes), strict=True)),
            tables=TableFiles(Path(files.latents), Path(files.partners)),
        ),
        Place(snakemake.wildcards.hook, int(snakemake.wildcards.seed), (), ()),
        Site(**params.site),
        Path(snakemake.output.folder),
    )
