# Runs the function that the rule names in its param `call`.
from atlas.calls import Given, run_call

named = {**dict(snakemake.params.items()), **dict(snakemake.input.items()), **dict(snakemake.output.items())}
call = named.pop("call")
given = Given(named, dict(snakemake.wildcards.items()), snakemake.threads)
run_call(call, given, snakemake.log[0], snakemake.resources)
