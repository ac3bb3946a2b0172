# Measures of studies: files of a study's SAEs -> results/<study>_<measure>.csv
#                      -> results/figures/<study>_<measure>.{pdf,png}
# Not part of a study's own table: ask for one by name. Each is described in workflow/atlas/<package>/study.py.

for MEASURE in measures():

    rule:
        name:
            f"study_{MEASURE.name}"
        input:
            **of_study(MEASURE.inputs),
            **{name: of_study(of_saes(path)) for name, path in MEASURE.per_sae.items()},
        output:
            **MEASURE.tables,
        log:
            f"results/logs/study_{MEASURE.name}/{{study}}.log",
        benchmark:
            f"results/benchmarks/study_{MEASURE.name}/{{study}}.tsv"
        wildcard_constraints:
            study=studies_of(MEASURE),
        localrule: True
        conda:
            "../../envs/atlas.yaml"
        resources:
            mem_mb=MEASURE.memory_mb,
            runtime=MEASURE.minutes,
        params:
            **of_study(MEASURE.params),
            **{f"{name}_by": study_saes for name in MEASURE.per_sae},
            **noted(MEASURE, of_study),
            call=function(MEASURE.writes),
        message:
            announced(MEASURE)
        script:
            "../scripts/call.py"

    if MEASURE.figure:

        rule:
            name:
                f"{MEASURE.figure_name}_figure"
            input:
                **MEASURE.figure_inputs,
            output:
                targets=[
                    report(
                        MEASURE.figure_files[0],
                        category="Studies",
                        caption="../report/figure.rst",
                        labels={"study": "{study}", "kind": MEASURE.figure.kind},
                    ),
                    *MEASURE.figure_files[1:],
                ],
            log:
                f"results/logs/{MEASURE.figure_name}_figure/{{study}}.log",
            benchmark:
                f"results/benchmarks/{MEASURE.figure_name}_figure/{{study}}.tsv"
            wildcard_constraints:
                study=studies_of(MEASURE),
            localrule: True
            conda:
                "../../envs/atlas.yaml"
            resources:
                mem_mb=MEASURE.figure.memory_mb,
                runtime=10,
            params:
                **of_study(MEASURE.figure.params),
                call=function(MEASURE.figure.draws),
            message:
                f"Drawing {MEASURE.figure_files[0].replace('{', '{wildcards.')}"
            script:
                "../scripts/call.py"

        if MEASURE.figure.is_main:
            workflow.ruleorder(f"{MEASURE.figure_name}_figure", "study_figure")
