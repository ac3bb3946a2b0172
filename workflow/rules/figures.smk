# Figures: results/<study>.csv -> results/figures/<study>.{pdf,png}
#          results/<study>_runs.csv, training curves -> results/figures/<study>_training.{pdf,png}
#          results/<study>.csv, results/<study>_autointerp.csv -> results/figures/<study>_width.{pdf,png}
#          results/<study>.csv, results/<study>_latents.parquet -> results/figures/<study>_health.{pdf,png}
#          results/<study>_stability.csv, results/<study>_health.csv -> results/figures/<study>_stability.{pdf,png}
# Beside each figure lies its caption, .txt, made from the same data; the report shows it.


rule study_figure:
    """The case-study table as small multiples over layers, published beside ours."""
    input:
        table="results/{study}.csv",
    output:
        targets=[
            report(
                "results/figures/{study}.pdf",
                category="Studies",
                caption="../report/figure.rst",
                labels={"study": "{study}", "kind": "figure"},
            ),
            "results/figures/{study}.png",
            "results/figures/{study}.txt",
        ],
    log:
        "results/logs/study_figure/{study}.log",
    benchmark:
        "results/benchmarks/study_figure/{study}.tsv"
    wildcard_constraints:
        study="(?!frameworks[.])[A-Za-z0-9._-]+" + "".join(f"(?<!{ending})" for ending in ENDINGS),
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.figures.study.draw_study"),
    message:
        "Drawing results/figures/{wildcards.study}.pdf"
    script:
        "../scripts/call.py"


rule training_figure:
    """Curves of all trainings of a study."""
    input:
        table=rules.study_runs.output.table,
        curves=lambda w: expand("results/saes/{sae}/training.parquet", sae=trained_saes(w)),
    output:
        targets=[
            report(
                "results/figures/{study}_training.pdf",
                category="Studies",
                caption="../report/figure.rst",
                labels={"study": "{study}", "kind": "trainings, curves"},
            ),
            "results/figures/{study}_training.png",
            "results/figures/{study}_training.txt",
        ],
    log:
        "results/logs/training_figure/{study}.log",
    benchmark:
        "results/benchmarks/training_figure/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        curves_by=trained_saes,
        call=function("atlas.figures.training.draw_training"),
    message:
        "Drawing results/figures/{wildcards.study}_training.pdf"
    script:
        "../scripts/call.py"


rule width_figure:
    """Sizes of dictionaries side by side: what grows with the number of latents, and what gets worse."""
    input:
        table="results/{study}.csv",
        labels="results/{study}_autointerp.csv",
    output:
        targets=[
            report(
                "results/figures/{study}_width.pdf",
                category="Studies",
                caption="../report/figure.rst",
                labels={"study": "{study}", "kind": "sizes"},
            ),
            "results/figures/{study}_width.png",
            "results/figures/{study}_width.txt",
        ],
    log:
        "results/logs/width_figure/{study}.log",
    benchmark:
        "results/benchmarks/width_figure/{study}.tsv"
    wildcard_constraints:
        study=GRID_STUDIES,
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.figures.width.draw_width"),
    message:
        "Drawing results/figures/{wildcards.study}_width.pdf"
    script:
        "../scripts/call.py"


rule health_figure:
    """What the case-study table does not show: silent latents against tokens, massive activations, densities, neighbours."""
    input:
        table="results/{study}.csv",
        latents=rules.study_latents.output.latents,
    output:
        targets=[
            report(
                "results/figures/{study}_health.pdf",
                category="Studies",
                caption="../report/figure.rst",
                labels={"study": "{study}", "kind": "health"},
            ),
            "results/figures/{study}_health.png",
            "results/figures/{study}_health.txt",
        ],
    log:
        "results/logs/health_figure/{study}.log",
    benchmark:
        "results/benchmarks/health_figure/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        call=function("atlas.figures.health.draw_health"),
    message:
        "Drawing results/figures/{wildcards.study}_health.pdf"
    script:
        "../scripts/call.py"


rule stability_figure:
    """How much of a dictionary comes back with another seed, and whether it fires as often on other text."""
    input:
        stability=rules.study_stability.output.table,
        health=rules.study_latents.output.health,
    output:
        targets=[
            report(
                "results/figures/{study}_stability.pdf",
                category="Studies",
                caption="../report/figure.rst",
                labels={"study": "{study}", "kind": "stability and drift"},
            ),
            "results/figures/{study}_stability.png",
            "results/figures/{study}_stability.txt",
        ],
    log:
        "results/logs/stability_figure/{study}.log",
    benchmark:
        "results/benchmarks/stability_figure/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.figures.stability.draw_stability"),
    message:
        "Drawing results/figures/{wildcards.study}_stability.pdf"
    script:
        "../scripts/call.py"
