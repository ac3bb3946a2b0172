# The workflow is workflow/Snakefile. An included file cannot set the default target, hence the one rule here.
include: "workflow/Snakefile"


rule default:
    """What a plain `snakemake` makes: everything."""
    input:
        rules.all.input,
