"""Study rows become SAEs: references resolved, overrides applied, duplicates refused."""

from dataclasses import dataclass, field
from functools import cached_property

from pydantic import ValidationError

from atlas.config.budget import mean_weights, too_many_epochs
from atlas.config.faults import describe
from atlas.config.mixes import Mix
from atlas.config.planted_rows import check_planted, check_samples, check_usefulness
from atlas.config.recipe import TRANSCODERS, Recipe
from atlas.config.saes import PublishedSae, stated_mix
from atlas.config.sections import AtlasConfig
from atlas.config.shifts import EvaluationTarget
from atlas.config.study import EvaluationCorpora, Study, StudyRow
from atlas.errors import ConfigError
from atlas.hook_points import HookPoint, SaeHooks
from atlas.sae_ids import SaeId, is_stated


@dataclass(frozen=True)
class SaeRow:
    """One SAE of one study."""

    study: str
    model: str
    hook: str
    mix: str
    recipe_name: str
    seed: int  # of a published SAE that of the random dictionary beside it, 0
    recipe: Recipe | None  # None: published
    roles: dict[str, str] = field(hash=False)  # evaluation corpus -> in_sample | proxy | oos
    target_hook: str | None = None  # of a transcoder
    shift: str | None = None  # name of what is otherwise where it is judged than where it was trained
    intended: str | None = None  # the regime that `cause` is to provoke
    cause: str | None = None

    place: EvaluationTarget | None = None  # where it is judged; None: where it was trained
    published: PublishedSae | None = field(default=None, hash=False)  # of an SAE that was trained elsewhere

    @property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        if self.published is not None:
            return self.published.n_latents
        assert self.recipe is not None  # all others are trained here
        return self.recipe.n_latents

    @property
    def judged(self) -> EvaluationTarget:
        """Return where this row judges the SAE."""
        return self.place or EvaluationTarget(
            self.model, str(SaeHooks.of(self.hook, self.target_hook)), 1.0, self.roles
        )

    @property
    def judged_id(self) -> str:
        """The SAE and, if there is one, the shift under which it is judged: a study has each once."""
        return f"{self.sae_id}/{self.shift}" if self.shift else self.sae_id

    @property
    def in_sample_corpus(self) -> str:
        """The corpus of training on whose held-out documents the SAE is judged."""
        return next(corpus for corpus, role in self.roles.items() if role == "in_sample")

    @cached_property
    def sae_id(self) -> str:
        """Path of the SAE below results/saes/, and its name everywhere."""
        hooks = SaeHooks.of(self.hook, self.target_hook)
        return str(SaeId(self.model, hooks, self.mix, self.recipe_name, self.seed))


def expand_rows(config: AtlasConfig) -> dict[str, list[SaeRow]]:
    """Expand every study; raises ConfigError with study, row, key, value and what was expected."""
    seen: dict[str, SaeRow] = {}
    studies = {}
    for name, study in config.studies.items():
        studies[name], judged = [], set()
        for number, row in enumerate(study.rows):
            where = f"studies.{name}.rows[{number}]"
            for sae in _expand(config, name, study, row, where):
                if sae.judged_id in judged:
                    raise ConfigError(
                        f"{where}: duplicate row {sae.judged_id!r}; name another recipe, mix, hook, seed or shift"
                    )
                other = seen.setdefault(sae.sae_id, sae)
                if other.recipe != sae.recipe:
                    raise ConfigError(
                        f"{where}.override: {sae.sae_id!r} is trained otherwise in study {other.study!r}; "
                        "give one of the two a recipe of its own name"
                    )
                for corpus in other.roles.keys() & sae.roles.keys():
                    if other.roles[corpus] != sae.roles[corpus]:
                        raise ConfigError(
                            f"{where}.evaluation: corpus {corpus!r} is {sae.roles[corpus]} to {sae.sae_id!r}, but "
                            f"{other.roles[corpus]} in study {other.study!r}; give it one role"
                        )
                if next(iter(other.roles)) != next(iter(sae.roles)):
                    raise ConfigError(
                        f"{where}.evaluation.in_sample: {next(iter(sae.roles))!r} stands first, from which drift of "
                        f"{sae.sae_id!r} starts, but {next(iter(other.roles))!r} in study {other.study!r}; choose one"
                    )
                studies[name].append(sae)
                judged.add(sae.judged_id)
        check_usefulness(config, name)
    return studies


def stated_mixes(rows: list[SaeRow]) -> dict[str, Mix]:
    """The text that users call in-sample of published SAEs, under the names that stand for a mix in their ids."""
    corpora = [tuple(corpus for corpus, role in row.roles.items() if role == "in_sample") for row in rows]
    return dict(stated_mix(own) for own, row in zip(corpora, rows, strict=True) if is_stated(row.mix))


def _expand(config: AtlasConfig, name: str, study: Study, row: StudyRow, where: str) -> list[SaeRow]:
    if row.sae is not None:
        return [_published(config, name, study, row, where)]
    chosen = {}
    for key, table in (("model", config.models), ("mix", config.mixes), ("recipe", config.recipes)):
        chosen[key] = getattr(row, key) or getattr(study, key)
        if chosen[key] is None:
            raise ConfigError(f"{where} and its study name no {key}; expected one of {sorted(table)}")
        if chosen[key] not in table:
            raise ConfigError(f"{where}.{key}: {chosen[key]!r} is not one of {sorted(table)}")
    assert row.hook is not None  # a row without `sae` has one
    _check_hook(config, chosen["model"], row.hook, f"{where}.hook")
    evaluation, place = _evaluation(name, study, row, where)
    roles = evaluation.by_corpus()
    _check_corpora(config, roles, place)
    trained = config.mixes[chosen["mix"]].corpora
    for corpus, role in roles.items():
        if role != "in_sample" and corpus in trained:
            raise ConfigError(
                f"{place}.{role}: {corpus!r} is in training mix {chosen['mix']!r} "
                f"({', '.join(trained)}); a {role} corpus must not be trained on"
            )
    for corpus in evaluation.trained:
        if corpus not in trained:
            raise ConfigError(
                f"{place}.in_sample: {corpus!r} is not in training mix {chosen['mix']!r}; expected one of "
                f"{', '.join(trained)}"
            )
    recipe = _override(config.recipes[chosen["recipe"]], row, where)
    check_planted(config, chosen["model"], [*trained, *roles], recipe, where)
    _check_epochs(config, chosen["model"], chosen["mix"], recipe, where)
    if row.target_hook is not None:
        _check_transcoder(config, chosen["model"], row, recipe, f"{where}.target_hook")
    trained_at = EvaluationTarget(chosen["model"], row.hook, 1.0, roles)
    place = None if row.shift is None else _shifted(config, trained_at, trained, row, f"{where}.shift")
    seeds = row.seeds if row.seeds is not None else study.seeds
    return [
        SaeRow(
            name,
            chosen["model"],
            row.hook,
            chosen["mix"],
            chosen["recipe"],
            seed,
            recipe,
            roles,
            row.target_hook,
            row.shift,
            row.intended,
            row.cause,
            place,
        )
        for seed in seeds
    ]


def _evaluation(name: str, study: Study, row: StudyRow, where: str) -> tuple[EvaluationCorpora, str]:
    if row.evaluation is not None:
        return row.evaluation, f"{where}.evaluation"
    return study.evaluation, f"studies.{name}.evaluation"


def _check_corpora(config: AtlasConfig, roles: dict[str, str], place: str) -> None:
    for corpus in roles:
        if corpus not in config.corpora:
            raise ConfigError(f"{place}: corpus {corpus!r} is not one of {sorted(config.corpora)}")


def _published(config: AtlasConfig, name: str, study: Study, row: StudyRow, where: str) -> SaeRow:
    """The row of an SAE that was trained elsewhere: model and hook are its own, the roles are what the user states."""
    if row.sae not in config.saes:
        raise ConfigError(f"{where}.sae: {row.sae!r} is not one of saes, which has {sorted(config.saes)}")
    sae, key = config.saes[row.sae], f"saes.{row.sae}"
    if sae.model not in config.models:
        raise ConfigError(f"{key}.model: {sae.model!r} is not one of {sorted(config.models)}")
    _check_hook(config, sae.model, sae.hook, f"{key}.hook")
    if sae.target_hook is not None:
        _check_target(config, sae.model, sae.hook, sae.target_hook, f"{key}.target_hook")
    evaluation, place = _evaluation(name, study, row, where)
    roles = evaluation.by_corpus()
    _check_corpora(config, roles, place)
    for corpus in evaluation.trained:
        if config.corpora[corpus].eval_fraction in (0, 1):
            raise ConfigError(
                f"{place}.in_sample: corpora.{corpus}.eval_fraction is {config.corpora[corpus].eval_fraction:g}; "
                f"{row.sae!r} needs held-out documents to be judged on, and the others to know what is usual at "
                f"{sae.hook}; give a share between 0 and 1"
            )
    judged = None
    if row.shift is not None:
        home = EvaluationTarget(sae.model, sae.hook, 1.0, roles)
        judged = _shifted(config, home, evaluation.trained, row, f"{where}.shift", sae.target_hook)
    mix = stated_mix(evaluation.trained)[0]
    return SaeRow(
        name,
        sae.model,
        sae.hook,
        mix,
        row.sae,
        0,
        None,
        roles,
        sae.target_hook,
        row.shift,
        row.intended,
        row.cause,
        judged,
        sae,
    )


def _shifted(
    config: AtlasConfig,
    home: EvaluationTarget,
    trained: tuple[str, ...],
    row: StudyRow,
    where: str,
    target_hook: str | None = None,
) -> EvaluationTarget:
    if row.shift not in config.shifts:
        raise ConfigError(f"{where}: {row.shift!r} is not one of {sorted(config.shifts)}")
    if row.target_hook is not None or target_hook is not None:
        raise ConfigError(f"{where}: a transcoder cannot be shifted, it has two hooks; expected a row without a target")
    shift, key = config.shifts[row.shift], f"shifts.{row.shift}"
    place = shift.place(home)
    if len(place.roles) < len(home.roles):
        raise ConfigError(f"{key}.corpora: {shift.corpora} judge one corpus in the place of two; give each its own")
    for corpus, other in shift.corpora.items():
        if other not in config.corpora:
            raise ConfigError(f"{key}.corpora.{corpus}: {other!r} is not one of {sorted(config.corpora)}")
        if corpus not in home.roles:
            raise ConfigError(f"{key}.corpora: {corpus!r} is no evaluation corpus of {where}; it has {home.roles}")
        if other in home.roles or other in trained:
            raise ConfigError(f"{key}.corpora.{corpus}: {other!r} is trained on or judged at home already")
    if place == home:
        raise ConfigError(f"{where}: {row.shift!r} changes nothing for {home.model!r} at {home.hook!r}")
    if place.model not in config.models:
        raise ConfigError(f"{key}.model: {place.model!r} is not one of {sorted(config.models)}")
    check_samples(config, place.model, place.roles, where)
    _check_hook(config, place.model, place.hook, f"{key}.hook")
    widths = [config.models[name].d_model for name in (home.model, place.model)]
    if widths[0] != widths[1]:
        raise ConfigError(
            f"{where}: {row.shift!r} judges an SAE of {home.model!r} (d_model {widths[0]}) on {place.model!r} "
            f"(d_model {widths[1]}); expected a model of the same width"
        )
    return place


def _check_transcoder(config: AtlasConfig, model: str, row: StudyRow, recipe: Recipe, where: str) -> None:
    assert row.hook is not None and row.target_hook is not None  # the caller looked
    _check_target(config, model, row.hook, row.target_hook, where)
    if recipe.architecture not in TRANSCODERS:
        raise ConfigError(
            f"{where}: {row.target_hook!r} makes a transcoder, which architecture {recipe.architecture!r} is not "
            f"made for; expected a recipe with one of {', '.join(TRANSCODERS)}"
        )
    if recipe.initial_copies:
        raise ConfigError(f"{where}: initial_copies is for SAEs; leave it out of the recipe")
    if recipe.parity:
        raise ConfigError(f"{where}: parity is for SAEs, it reproduces no transcoder; leave out the recipe's parity")


def _check_target(config: AtlasConfig, model: str, hook: str, target_hook: str, where: str) -> None:
    _check_hook(config, model, target_hook, where)
    try:
        SaeHooks.of(hook, target_hook)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_epochs(config: AtlasConfig, model: str, mix: str, recipe: Recipe, where: str) -> None:
    """A corpus has at most as many rows as its token budget; the exact number is known when it is stored."""
    shares = mean_weights(config.mixes[mix])
    harvest = config.models[model].harvest
    if fault := too_many_epochs(recipe, shares, {corpus: harvest.of(corpus).train_tokens for corpus in shares}):
        raise ConfigError(f"{where}: {fault}")


def _check_hook(config: AtlasConfig, model: str, hook: str, where: str) -> None:
    entry = config.models[model]
    try:
        layer = HookPoint.parse(hook).layer
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if layer >= entry.n_layers:
        raise ConfigError(f"{where}: {hook!r} is beyond {model!r}, which has layers 0 to {entry.n_layers - 1}")
    if hook not in entry.hooks:
        raise ConfigError(
            f"{where}: {hook!r} is not one of models.{model}.hooks, {list(entry.hooks)}: their rows are stored. If it "
            "is the right hook, add it there; activations of the model are then collected anew"
        )


def _override(recipe: Recipe, row: StudyRow, where: str) -> Recipe:
    try:
        return Recipe.model_validate(recipe.model_dump(exclude_unset=True) | row.override)
    except ValidationError as error:
        fault = describe(error.errors(), Recipe, {})[0]
        hint = ""
        if row.override.get("architecture", recipe.architecture) != recipe.architecture:
            hint = "; an override changes single keys, another architecture needs a recipe of its own"
        at = "." if error.errors()[0]["loc"] else ": "
        raise ConfigError(f"{where}.override{at}{fault}{hint}") from error
