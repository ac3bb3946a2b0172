# What the rules of planted models look up: which models and corpora are drawn.
PLANTED_MODELS = [name for name, model in CONFIG.models.items() if model.is_planted]
PLANTED_CORPORA = [name for name, corpus in CONFIG.corpora.items() if corpus.is_planted]
ONLY_PLANTED_MODELS = only(PLANTED_MODELS)
ONLY_PLANTED_CORPORA = only(PLANTED_CORPORA)


def text_of(corpus, name):
    """A file of a corpus' text; a planted corpus has none."""
    if corpus in PLANTED_CORPORA:
        raise WorkflowError(
            f"corpus {corpus!r} is planted: its rows are drawn, there is no text, hence no {name}; of a planted study "
            "there are results/<study>.csv, <study>_runs.csv, <study>_recovery.csv, <study>_verdicts.csv and figures"
        )
    return f"results/corpora/{corpus}/{name}"


def references_of(model, corpora):
    """Reference losses of a model on corpora; a planted one has no losses."""
    return [] if model in PLANTED_MODELS else [f"results/references/{model}/{corpus}.h5" for corpus in corpora]
