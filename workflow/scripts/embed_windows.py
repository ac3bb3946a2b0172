from pathlib import Path

from atlas.gpu_lease import granted_gpus
from atlas.job import job

with job(snakemake.log[0], snakemake.threads, granted_gpus(snakemake.resources)) as device:
    from atlas.activations.store import open_shards
    from atlas.latents.embedded_windows import embed_windows
    from atlas.latents.embedder import Embedder, embedder_sha256
    from atlas.models.load import load_tokenizer

    folder = Path(snakemake.input.embedder)
    embed_windows(
        open_shards([Path(path) for path in snakemake.input.shards]),
        load_tokenizer(Path(snakemake.input.model)),
        Embedder.load(folder, device),
        embedder_sha256(folder),
        snakemake.params.width,
        Path(snakemake.output.windows),
    )
