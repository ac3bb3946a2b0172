"""A small site from files whose every number and text is known: two seeds on a tiny model, with text that attacks."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from latent_scene import random_firings, write_codes
from shards import make_shard

from atlas.autointerp.by_context import FACTS
from atlas.autointerp.outcome import OUTCOMES, Deciding
from atlas.codes.encode import identity_of
from atlas.config.latents import Latents
from atlas.config.site import Site
from atlas.config.study import Taxonomy
from atlas.corpora.encoding import tokenizer_sha256
from atlas.latents.run import LatentInputs, LatentSettings, run_latents
from atlas.latents.table import write_sae_table
from atlas.models.load import load_tokenizer
from atlas.models.prepare import prepare_model
from atlas.site.effects import EffectFiles
from atlas.site.index import build_index
from atlas.site.run import SaePageContext, SiteInputs, build_sae_pages
from atlas.site.sae import SaePageFiles
from atlas.site.tables import AllLabels, TableFiles
from atlas.training.sae import Sae, save_sae
from tiny import describe_model, tiny_llama

HOOK, GROUP, N_LATENTS, LENGTH = "resid_post.0", "tiny/resid_post.0/chat/topk", 12, 20
ROLES = {"chat": "in_sample", "news": "oos"}
HOSTILE, SILENT, DENSE, BY_TOKENS = 3, 2, 5, 7
# Every 20 bytes are a context; each attack begins one of its own.
ATTACKS = (
    "<script>x()</script>",
    "<img src=x onerror=>",
    "\"'><b onclick=x()>&lt",
    "\u202e\u2066abc\x00\x07\x1b[31m\u200b",
    "</bdi></li></ol><h1>",
    "Grüße 你好 🙂 ok",
)
LABEL = '<script>attacked = true</script>"><img src=x onerror="attacked=true">\u202egood'
SETTINGS = Site(top_contexts=6, strata=2, contexts_per_stratum=1, window_tokens=20, neighbours=3, random_latents=4)


class SiteScene:
    """Latent HOSTILE fires on the attacks alone, SILENT never, DENSE on half of all tokens, the others at random."""

    def __init__(self, folder: Path):
        self.folder, self.model, self.site = folder, folder / "model", folder / "results/atlas"
        source = tiny_llama(folder / "llama")
        prepare_model("tiny", describe_model(source, 4), None, self.model, folder / "lock")
        self.tokenizer = load_tokenizer(self.model)
        (folder / "chat").mkdir()
        make_shard(folder / "chat/train-000.h5", 4, hooks={HOOK: 32})
        for seed in (0, 1):
            self.write_sae(seed)

    def sae(self, seed: int) -> Path:
        return self.folder / f"results/saes/{GROUP}/seed-{seed}"

    def text(self, corpus: str) -> np.ndarray:
        generator = np.random.default_rng(len(corpus))
        tokens = generator.integers(6, 262, 60 * LENGTH)
        for number, attack in enumerate(ATTACKS if corpus == "chat" else ()):
            own = self.tokenizer.encode(attack, add_special_tokens=False)[:LENGTH]
            tokens[number * LENGTH : number * LENGTH + len(own)] = own
        return tokens

    def write_sae(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        W_dec = torch.nn.functional.normalize(torch.randn(N_LATENTS, 32, generator=generator), dim=1)
        sae = Sae("topk", W_dec.T.contiguous(), torch.zeros(N_LATENTS), W_dec, torch.zeros(32), k=4)
        folder = self.sae(seed)
        save_sae(sae, folder, {"model_name": "tiny", "hook_name": HOOK})
        self.codes = {}
        for corpus in ROLES:
            for kind in ("sae", "random"):
                self._write_codes(seed, corpus, kind)
        self._write_results(seed, folder)

    def _write_codes(self, seed: int, corpus: str, kind: str) -> None:
        tokens = self.text(corpus)
        rates = [0.05] * N_LATENTS
        rates[SILENT], rates[DENSE] = 0, 0.5
        dense = random_firings(tokens, rates, seed)
        attacked = np.arange(len(tokens)) < LENGTH * (len(ATTACKS) if corpus == "chat" else 0)
        dense[:, HOSTILE] = attacked * (1.0 + np.arange(len(tokens)) % LENGTH)
        known = {
            "dictionary": kind,
            **identity_of(self.sae(seed), HOOK, seed),
            "tokenizer_sha256": tokenizer_sha256(self.model),
            "corpus": corpus,
            "corpus_fingerprint": f"text of {corpus}",
        }
        counted = np.ones(len(tokens), bool)
        path = self.folder / f"results/codes/{seed}/{kind}/{corpus}.h5"
        write_codes(path, dense, tokens, contexts_per_document=1, counted=counted, **known)

    def codes_of(self, seed: int, kind: str = "sae") -> dict[str, Path]:
        return {corpus: self.folder / f"results/codes/{seed}/{kind}/{corpus}.h5" for corpus in ROLES}

    def _write_results(self, seed: int, folder: Path) -> None:
        sae_id, sha256 = f"{GROUP}/seed-{seed}", identity_of(folder, HOOK, seed)["sae_sha256"]
        (folder / "metrics.json").write_text(json.dumps(metrics(sae_id)))
        settings = LatentSettings(Latents(min_tokens=100, top_contexts=4, window_tokens=3), 10**6, 100)
        shards = [self.folder / "chat/train-000.h5"]
        files = self.codes_of(seed), self.codes_of(seed, "random")
        run_latents(
            LatentInputs(self.model, folder, shards, *files, folder / "metrics.json", None, {}),
            hook=HOOK,
            seed=seed,
            roles=ROLES,
            settings=settings,
            table=folder / "latents.parquet",
            summary=folder / "latents.json",
        )
        latents = np.arange(N_LATENTS)
        other = {"seed": seed, "other_seed": 1 - seed, "latent": latents, "partner": latents[::-1]}
        partners = pd.DataFrame(other | {"decoder_cosine": 0.5, "shared": latents % 2 == 0})
        partners.to_parquet(folder / "partners.parquet")
        one = {"firing": None, "reasons": {"stability": "made for a test"}}
        (folder / "stability.json").write_text(json.dumps({"saes": {"0": one, "1": one}}))
        card = {"monitored": {"in_sample": "chat", "oos": "news"}, "sae": {"k": 4}, "warnings": ["careful: <i>x</i>"]}
        (folder / "run_card.yaml").write_text(yaml.safe_dump(card))
        steps = {"step": [1, 2], "tokens": [100, 200], "explained_variance": [0.2, 0.5], "l0": 4.0, "silent_share": 0.0}
        frames = [
            pd.DataFrame(steps | {"split": split, "lr": 1e-3, "threshold": None})
            for split in ("train", "in_sample", "oos")
        ]
        pd.concat(frames).to_parquet(folder / "training.parquet")
        self._write_labels(folder, sae_id, sha256)

    def _write_labels(self, folder: Path, sae_id: str, sha256: str) -> None:
        scores = {f"{kind}_{name}": 0.6 for kind in ("random", "hard") for name in SCORES}
        labels = pd.DataFrame({"latent": np.arange(N_LATENTS), "outcome": "good", "label": "plain", **scores})
        labels["label"] = [f"meaning-{number}" for number in range(N_LATENTS)]
        labels["random_score"] = 0.5 + np.arange(N_LATENTS) / 100
        labels.loc[HOSTILE, "label"] = LABEL
        labels.loc[SILENT, ["outcome", "label", "random_score"]] = ["untested", None, np.nan]
        labels.loc[DENSE, "outcome"] = "noisy"
        labels = labels.assign(told_by="words", scorer="words", token_correlation=0.4, noisy_above=0.1)
        assert set(labels.outcome) <= set(OUTCOMES)
        write_sae_table(folder / "labels.parquet", labels.assign(random_reason=None), ["latent"], sae_id, sha256)
        every = {"dictionary": "random", "latent": np.arange(N_LATENTS)}
        said = pd.DataFrame(every | {"explainer": "lexical", "seed": 0, "label": LABEL})
        write_sae_table(folder / "all_labels.parquet", said, ["dictionary", "latent"], sae_id, sha256)
        tested = pd.concat(
            pd.DataFrame(every | dict.fromkeys(SCORES, 0.52) | {"negatives": kind, "reason": None})
            for kind in ("random", "hard")
        ).assign(explainer="lexical", scorer="embedding", n_positives=10, n_negatives=10)
        write_sae_table(folder / "scores.parquet", tested, ["dictionary", "latent"], sae_id, sha256)
        by_token = pd.concat(pd.DataFrame(every | {"fact": fact, "correlation": 0.1}) for fact in FACTS)
        write_sae_table(folder / "tokens.parquet", by_token, ["dictionary", "latent"], sae_id, sha256)
        rows = [
            (HOSTILE, kind, 0.1 * n, "chat", LENGTH * n, 10) for n, kind in enumerate(("activating", "random", "hard"))
        ]
        answers = pd.DataFrame(rows, columns=["latent", "kind", "answer", "corpus", "start", "width"])
        answers = pd.concat([answers.assign(scorer="words"), answers.assign(scorer="embedding", answer=-7.0)])
        write_sae_table(folder / "answers.parquet", answers, ["latent"], sae_id, sha256)
        row = {"dictionary": "sae", "negatives": "random", "verdict": "beats its controls", "random_score": 0.51}
        row |= {"score": {"value": 0.6, "interval": [0.55, 0.65]}, "shuffled": {"value": 0.5}}
        (folder / "autointerp.json").write_text(json.dumps({"sae_id": sae_id, "rows": [row]}))

    def effects(self, seed: int) -> EffectFiles:
        """HOSTILE has tokens and texts that attack, SILENT is not measured, DENSE has no effect beyond its null."""
        folder = self.sae(seed)
        sae_id, sha256 = f"{GROUP}/seed-{seed}", identity_of(folder, HOOK, seed)["sae_sha256"]
        latents = np.arange(N_LATENTS - 1)  # the last one is not in the sample
        rows = pd.DataFrame({"latent": latents, "verdict": "beyond a random direction", "reason": None})
        rows = rows.assign(n_measured=8, n_documents=4, other=1.0, kl_twin=np.nan, kl_twin_reason="no twin was given")
        for name, value in (("kl", 0.25), ("kl_random", 0.125), ("kl_other", 0.1)):
            rows = rows.assign(**{name: value, f"{name}_low": value / 2, f"{name}_high": value * 2})
        rows["promoted_lift_random"] = 0.01
        rows = rows.assign(kl_over_random_low=0.1, stated_lift_over_random_low=-0.1)
        judged_by_tokens = ["kl_over_random_low", "stated_lift_over_random_low", "stated_lift", "stated_lift_random"]
        rows.loc[BY_TOKENS, judged_by_tokens] = [-0.1, 0.1, 0.75, 0.03125]
        rows.loc[DENSE, "verdict"] = "no effect beyond a random direction"
        rows.loc[SILENT, ["verdict", "reason", "n_measured"]] = ["not measured", "never fires", 0]
        fired = [latent for latent in latents if latent != SILENT]
        each = pd.DataFrame(
            [(latent, clamp) for latent in fired for clamp in (0.0, 1.0, 4.0)], columns=["latent", "clamp"]
        )
        doses = each.assign(kl=each.clamp, kl_random=each.clamp / 2)
        tokens = pd.DataFrame({"latent": fired, "dictionary": "sae", "which": "promoted"})
        null = pd.DataFrame({"latent": fired, "dictionary": "random", "which": "promoted"})
        texts = each.assign(prompt="ordinary", text="plain words", clean_text="other words", kl=0.5, reason=None)
        texts.loc[texts.latent == HOSTILE, ["prompt", "text", "clean_text"]] = [ATTACKS[2], ATTACKS[1], ATTACKS[3]]
        texts.loc[texts.clamp == 4, ["text", "kl", "reason"]] = [None, np.nan, "the state overflows <b>there</b>"]
        names = ("effects", "doses", "effect_tokens", "continuations")
        files = EffectFiles(*(folder / f"{name}.parquet" for name in names))
        tables = (
            rows,
            doses,
            pd.concat([tokens.assign(text=ATTACKS[0], lift=0.5), null.assign(text="x", lift=0.0625)]),
            texts,
        )
        for path, table in zip(vars(files).values(), tables, strict=True):
            write_sae_table(path, table, ["latent"], sae_id, sha256)
        return files

    def inputs(self, seed: int, labels: bool = True, random: bool = True) -> SiteInputs:
        folder = self.sae(seed)
        deciding = Deciding("lexical", ("embedding",), 0)
        return SiteInputs(
            self.model,
            folder,
            self.codes_of(seed),
            TableFiles(
                folder / "latents.parquet",
                folder / "partners.parquet",
                folder / "labels.parquet" if labels else None,
                folder / "answers.parquet" if labels else None,
                AllLabels(*(folder / f"{name}.parquet" for name in ("all_labels", "scores", "tokens")), deciding)
                if labels
                else None,
            ),
            self.codes_of(seed, "random") if random else {},
            self.effects(seed),
        )

    def results(self, seed: int, labels: bool = True) -> SaePageFiles:
        names = ("metrics.json", "latents.json", "stability.json", "run_card.yaml", "training.parquet")
        folder = self.sae(seed)
        return SaePageFiles(*(folder / name for name in names), folder / "autointerp.json" if labels else None)

    def build(self, settings: Site = SETTINGS, labels: bool = True, seeds=(0, 1)) -> Path:
        for seed in seeds:
            place = SaePageContext(HOOK, seed, ("sweep",), (0, 1))
            target = self.site / f"saes/{GROUP}/seed-{seed}"
            build_sae_pages(self.inputs(seed, labels), self.results(seed, labels), place, settings, Taxonomy(), target)
        build_index({"sweep": [f"{GROUP}/seed-{seed}" for seed in seeds]}, self.site / "index.html")
        return self.site


SCORES = ("score", "score_low", "score_high", "shuffled", "blind", "specificity", "specificity_low")


def metrics(sae_id: str) -> dict:
    """As evaluation writes them, of a dictionary whose latents are half copies."""
    atlas = {
        "explained_variance": 0.95,
        "explained_variance_regular": 0.6,
        "explained_variance_regular_interval": [0.55, 0.65],
        "l0": 4.0,
        "l0_target": 4,
        "sparsity_constraint_broken": False,
        "dead_pct": 8.0,
        "dead_status": "untested",
        "dead_tokens": 1200,
        "dead_rate_bound": 0.0025,
        "expected_false_dead": 1.0,
        "dense_pct": 8.0,
        "loss_kind": "nats",
        "loss_recovered_zero": 0.9,
        "loss_recovered_zero_interval": [0.85, 0.95],
        "loss_recovered_mean": 0.8,
        "loss_recovered_mean_regular": 0.92,
        "delta_loss_regular": 0.12,
        "loss_clean": 3.0,
        "loss_zero": 6.0,
        "loss_mean": 4.5,
        "delta_loss": 0.3,
    }
    rules = [{"rule": "duplicated_share_above", "value": 0.5, "threshold": 0.25}]
    judged = {
        "n_counted": 1200,
        "n_massive": 6,
        "atlas": atlas,
        "guide": {"loss_recovered_pct": 95.0, "l0": 9.0, "dead_pct": 1.0},
        "outcome": {
            "atlas": {"verdict": "duplicated", "rules": rules, "unknown": ["dead"]},
            "guide": {"verdict": "good", "rules": [], "unknown": []},
        },
        "random": {"explained_variance_regular": 0.15},
    }
    return {
        "sae_id": sae_id,
        "architecture": "topk",
        "n_latents": N_LATENTS,
        "d_model": 32,
        "k": 4,
        "redundancy": {
            "absorption_guide": {"value": 0.7, "null_mean": 0.2, "null_sd": 0.01},
            "share_max_cosine_above_07": {"value": 0.5, "null_mean": 0.0, "null_sd": 0.0},
        },
        "corpora": {corpus: judged | {"role": role} for corpus, role in ROLES.items()},
    }
