"""Labels of latents of the SAEs of a study, and their scores."""

from atlas.autointerp.cost import Cost, cost
from atlas.config.plan import SaePlan, StudyPlan
from atlas.measure import Figure, Measure, Stage, of_saes


def _asks(study: StudyPlan) -> str:
    """Say what labelling asks of a language model at most."""
    return f"labelling {sum((cost(study.config.autointerp, row.n_latents) for row in study.rows), Cost())}"


def _corpora(sae: SaePlan) -> list[str]:
    """Evaluation corpora that give examples: those of the configured roles."""
    return [corpus for corpus, role in sae.roles.items() if role in sae.config.autointerp.roles]


def _client_model(sae: SaePlan) -> list[str]:
    """The prepared model that answers prompts in the job's own process, if one does."""
    client = sae.config.autointerp.client
    return [] if client is None or client.kind != "transformers" else [f"results/models/{client.model}"]


def _delphi(sae: SaePlan) -> str | None:
    return f"{sae.results}/environments/delphi/bin/python" if sae.config.autointerp.needs_delphi else None


LABELLING = Stage(
    "autointerp",
    runs="atlas.autointerp.run.run_autointerp",
    says="Labelling",
    waits_for=lambda sae: ["results/environments/delphi/ready"] if sae.config.autointerp.needs_delphi else [],
    inputs={
        "model": lambda sae: sae.model,
        "sae": lambda sae: sae.pair,
        "train_shards": lambda sae: sae.training_facts,
        "codes": lambda sae: sae.codes(_corpora(sae)),
        "random_codes": lambda sae: sae.codes(_corpora(sae), random=True),
        "embedder": lambda sae: sae.embedder,
        "client_model": _client_model,
    },
    outputs={
        **{name: f"results/autointerp/{{sae}}/{name}.parquet" for name in ("labels", "scores", "answers", "tokens")},
        "summary": "results/autointerp/{sae}/autointerp.json",
    },
    params={
        "codes_by": _corpora,
        "random_codes_by": _corpora,
        "settings": lambda sae: sae.settings("autointerp"),
        "bootstrap_samples": lambda sae: sae.config.evaluation.bootstrap_samples,
        "delphi": _delphi,
        "replies": lambda sae: f"{sae.results}/replies",
    },
    note=lambda sae: str(cost(sae.config.autointerp, sae.row.n_latents)),
    holds=("model", "codes"),
    minutes=240,
    threads_of_model=True,
    # Without a language model in the job itself a GPU would wait for a server, or for the lexical labels.
    gpu=lambda sae: bool(_client_model(sae)),
)

PLANTED = Stage(
    "planted_coherence",
    runs="atlas.autointerp.planted_coherence.write_planted_coherence",
    says="Coherence of planted latents beside",
    inputs={
        "model": lambda sae: sae.model,
        "sae": lambda sae: sae.pair,
        "codes": lambda sae: sae.codes(sae.roles),
        "embedder": lambda sae: sae.embedder,
        "windows": lambda sae: sae.windows(sae.roles),
    },
    outputs={"target": "results/latents/{sae}/planted.json"},
    params={
        "roles": lambda sae: sae.roles,
        "codes_by": lambda sae: list(sae.roles),
        "windows_by": lambda sae: list(sae.roles) if sae.embedder else [],
        "settings": lambda sae: sae.settings("autointerp", include={"window_tokens", "planted", "seeds"}),
        "latents": lambda sae: sae.settings("latents", exclude={"embedder"}),
    },
    holds=("codes",),
)

OUTCOMES = Stage(
    "latent_outcomes",
    runs="atlas.autointerp.outcome.write_latent_outcomes",
    says="Outcomes of latents of",
    inputs={
        "latents": lambda sae: f"results/latents/{sae.sae_id}/latents.parquet",
        **{
            name: (lambda sae, name=name: f"results/autointerp/{sae.sae_id}/{name}.parquet")
            for name in ("labels", "scores", "tokens")
        },
        "summary": lambda sae: f"results/autointerp/{sae.sae_id}/autointerp.json",
    },
    outputs={"target": "results/autointerp/{sae}/latents.parquet", "told": "results/autointerp/{sae}/told.json"},
    params={
        "settings": lambda sae: sae.settings("autointerp", include={"explainers", "scorers", "seeds", "client"}),
    },
    memory_mb=2000,
    minutes=20,
)

MEASURE = Measure(
    "autointerp",
    stages=(LABELLING, PLANTED, OUTCOMES),
    writes="atlas.autointerp.study_table.write_autointerp_table",
    inputs={
        "summary": of_saes("results/autointerp/{sae}/autointerp.json"),
        "latents": of_saes("results/autointerp/{sae}/latents.parquet"),
        "told": of_saes("results/autointerp/{sae}/told.json"),
        "metrics": of_saes("results/metrics/{sae}/metrics.json"),
    },
    params={"saes_by": lambda study: study.saes, "corpus": lambda study: list(study.in_sample.values())},
    note=_asks,
    figure=Figure(
        "atlas.autointerp.figure.draw_autointerp",
        kind="labels",
        # Other studies would have to be labelled for it.
        drawn=lambda study: study.has_pages and study.config.site.labels,
    ),
)
