"""Paths of the activation files of models, which follow from their token budgets."""

from atlas.config.data import Harvest
from atlas.config.sections import AtlasConfig
from atlas.errors import ConfigError


class StoreFiles:
    """Activation files of a configuration. Each job is asked for what it reads, so answers are kept."""

    def __init__(self, config: AtlasConfig):
        self._config = config
        self._harvests: dict[tuple[str, str], Harvest] = {}
        self._shards: dict[tuple[str, str, str], list[str]] = {}

    def harvest_of(self, model: str, corpus: str) -> Harvest:
        """Return how a model's activations on a corpus are collected."""
        if (model, corpus) not in self._harvests:
            self._harvests[model, corpus] = self._config.models[model].harvest.of(corpus)
        return self._harvests[model, corpus]

    def shards(self, model: str, corpus: str, split: str) -> list[str]:
        """Every activation file of a corpus; the number follows from the token budget."""
        key = (model, corpus, split)
        if key not in self._shards:
            number = self.harvest_of(model, corpus).n_shards(split)
            self._shards[key] = [
                f"results/activations/{model}/{corpus}/{split}-{shard:03d}.h5" for shard in range(number)
            ]
        return self._shards[key]

    def training_shards(self, mix: str, model: str) -> list[str]:
        """Training shards of every corpus of a mix; raises ConfigError for a model in mode `stream`: it keeps none."""
        if self._config.models[model].harvest.mode == "stream":
            raise ConfigError(
                f"models.{model}.harvest.mode is 'stream', which keeps no rows of training text; regimes and the "
                "comparison of frameworks read them: use mode 'store', or a model of another name in mode 'store' for "
                "that study"
            )
        return [path for corpus in self._config.mixes[mix].corpora for path in self.shards(model, corpus, "train")]

    def facts(self, model: str, corpus: str) -> list[str]:
        """Facts of the first training shards of a corpus."""
        number = self._config.models[model].harvest.statistics_shards
        return [f"results/activations/{model}/{corpus}/facts-{shard:03d}.h5" for shard in range(number)]

    def training_facts(self, mix: str, model: str) -> list[str]:
        """Files that say what training rows are like: all shards, or in windows the facts of the first ones."""
        if self._config.models[model].harvest.window_shards is None:
            return self.training_shards(mix, model)
        return [path for corpus in self._config.mixes[mix].corpora for path in self.facts(model, corpus)]
