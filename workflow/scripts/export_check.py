from pathlib import Path

from atlas.job import job

with job(snakemake.log[0], snakemake.threads, 0):
    from atlas.export.check import Export, check_export

    check_export(
        Export(
            snakemake.wildcards.format,
            sae_folder=Path(snakemake.input.weights).parent,
            folder=Path(snakemake.input.identity).parent,
        ),
        python=Path(snakemake.input.environment).parent / "bin" / "python",
        target=Path(snakemake.output.check),
    )
