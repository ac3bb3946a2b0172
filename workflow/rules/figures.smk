# Figures: results/<study>.csv -> results/figures/<study>.{pdf,png}


rule study_figure:
    """The case-study table as small multiples over layers, published beside ours."""
    input:
        table="results/{study}.csv",
    output:
        pdf=report(
            "results/figures/{study}.pdf",
            category="Studies",
            caption="../report/study_figure.rst",
            labels={"study": "{study}", "kind": "figure"},
        ),
        png="results/figures/{study}.png",
    log:
        "results/logs/study_figure/{study}.log",
    benchmark:
        "results/benchmarks/study_figure/{study}.tsv"
    conda:
        "../../envs/atlas.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=CODE["figures"],
    message:
        "Drawing results/figures/{wildcards.study}.pdf"
    script:
        "../scripts/study_figure.py"
