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
    localrule: True
    conda:
        "../../envs/atlas.yaml"
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
    localrule: True
    conda:
        "../../envs/atlas.yaml"
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
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.figures.width.draw_width"),
    message:
        "Drawing results/figures/{wildcards.study}_width.pdf"
    script:
        "../scripts/call.py"
