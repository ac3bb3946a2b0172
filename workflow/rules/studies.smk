# Studies: metrics of a study's SAEs, beside the published rows -> results/<study>.csv
#          results/<study>.csv, and results/<study>_usefulness.csv where the study asks for it
#                      -> results/tables/<study>.{md,tex}
#          run cards of a study's SAEs -> results/<study>_runs.csv


rule study_sources:
    """What a study takes from a network: models, text, packages. For clusters whose nodes have none."""
    input:
        sources=study_sources,
    output:
        listing="results/sources/{study}.txt",
    log:
        "results/logs/study_sources/{study}.log",
    benchmark:
        "results/benchmarks/study_sources/{study}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.studies.sources.write_listing"),
    message:
        "Models, text and packages of {wildcards.study} are here"
    script:
        "../scripts/call.py"


rule study_table:
    """One tidy row per SAE and evaluation corpus; columns are documented in docs/metrics.md."""
    input:
        metrics=lambda w: [judged_metrics(row.sae_id, row.shift) for row in study_rows(w)],
        comparisons=study_comparisons,
    output:
        table="results/{study}.csv",
    log:
        "results/logs/study_table/{study}.log",
    benchmark:
        "results/benchmarks/study_table/{study}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        saes=lambda w: [row.judged_id for row in study_rows(w)],
        twinned=lambda w: list(TWINS.get(w.study, {})),
        kinds=lambda w: list(CONFIG.studies[w.study].twins),
        corpora=study_corpora,
        published=lambda w: CONFIG.studies[w.study].published,
        code=code_of("study_table"),
    message:
        "Writing results/{wildcards.study}.csv"
    script:
        "../scripts/study_table.py"


rule study_printed:
    """A study's table for readers, in Markdown and in LaTeX with booktabs: values, intervals and nulls as text."""
    input:
        table=rules.study_table.output.table,
        usefulness=study_usefulness,
    output:
        markdown="results/tables/{study}.md",
        latex="results/tables/{study}.tex",
    log:
        "results/logs/study_printed/{study}.log",
    benchmark:
        "results/benchmarks/study_printed/{study}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        call=function("atlas.studies.printed.print_study"),
    message:
        "Writing results/tables/{wildcards.study}.md and .tex"
    script:
        "../scripts/call.py"


rule study_verdicts:
    """A study's verdicts for readers: why, what is not known, and what the words mean."""
    input:
        table=rules.study_table.output.table,
    output:
        page="results/verdicts/{study}.md",
    log:
        "results/logs/study_verdicts/{study}.log",
    benchmark:
        "results/benchmarks/study_verdicts/{study}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        dead_min_tokens=CONFIG.evaluation.dead_min_tokens,
        call=function("atlas.studies.verdicts.write_verdicts"),
    message:
        "Writing results/verdicts/{wildcards.study}.md"
    script:
        "../scripts/call.py"


rule study_runs:
    """The trainings of a study side by side: settings that differ, last numbers, cost."""
    input:
        cards=lambda w: expand("results/saes/{sae}/run_card.yaml", sae=study_saes(w)),
    output:
        table=report(
            "results/{study}_runs.csv",
            category="Studies",
            caption="../report/study_runs.rst",
            labels={"study": "{study}", "kind": "trainings, table"},
        ),
    log:
        "results/logs/study_runs/{study}.log",
    benchmark:
        "results/benchmarks/study_runs/{study}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cards_by=study_saes,
        call=function("atlas.studies.runs.write_runs_table"),
    message:
        "Writing results/{wildcards.study}_runs.csv"
    script:
        "../scripts/call.py"


rule study_cards:
    """Run cards as pages: in full with what differs between the runs and what they cost, and the public ones."""
    input:
        cards=lambda w: expand("results/saes/{sae}/run_card.yaml", sae=study_saes(w)),
    output:
        full=report(
            "results/run_cards/{study}.html",
            category="Studies",
            caption="../report/study_cards.rst",
            labels={"study": "{study}", "kind": "run cards and differences"},
        ),
        public="results/run_cards/{study}_public.html",
    log:
        "results/logs/study_cards/{study}.log",
    benchmark:
        "results/benchmarks/study_cards/{study}.tsv"
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        cards_by=study_saes,
        benchmarks=f"{RESULTS}/benchmarks",
        call=function("atlas.studies.cards.write_cards"),
    message:
        "Writing results/run_cards/{wildcards.study}.html"
    script:
        "../scripts/call.py"


rule card_difference:
    """What differs between two runs of a study, numbered from 0 in the order of <study>_runs.csv."""
    input:
        cards=lambda w: expand("results/saes/{sae}/run_card.yaml", sae=two_saes(w)),
    output:
        target=report(
            "results/run_cards/{study}/{first}-{second}.html",
            category="Studies",
            caption="../report/card_difference.rst",
            labels={"study": "{study}", "kind": "runs {first} and {second}"},
        ),
    log:
        "results/logs/card_difference/{study}/{first}-{second}.log",
    benchmark:
        "results/benchmarks/card_difference/{study}/{first}-{second}.tsv"
    wildcard_constraints:
        first="[0-9]+",
        second="[0-9]+",
    localrule: True
    conda:
        "../../envs/atlas.yaml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        saes=two_saes,
        call=function("atlas.studies.cards.write_difference"),
    message:
        "Comparing runs {wildcards.first} and {wildcards.second} of {wildcards.study}"
    script:
        "../scripts/call.py"
