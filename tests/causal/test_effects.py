"""Effects of latents: what is measured is what an intervention does, planted effects are found, nothing is not."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from drawn_sae import LATENTS, WIDTH, draw_sae
from test_adapters import build

from atlas.causal.continuations import continue_texts
from atlas.causal.effects import allowed_rows, measure
from atlas.causal.firings import choose_firings, other_latents
from atlas.causal.interventions import Change, Intervention, intervened_logits
from atlas.causal.run import _twin_decoder
from atlas.causal.summary import summarise
from atlas.causal.tables import (
    BEYOND,
    NEVER,
    NOT_BEYOND,
    UNMEASURED,
    dose_rows,
    effect_rows,
    label_rows,
    mean_lifts,
    promoted_columns,
    token_rows,
)
from atlas.codes.store import LatentEntries
from atlas.config.causal import Causal
from atlas.errors import CausalError
from atlas.hook_points import SaeHooks
from atlas.models.forward import capture
from atlas.statistics.clusters import LEAST_CLUSTERS
from atlas.training.sae import save_sae

LENGTH, CONTEXTS = 16, 10
SETTINGS = Causal(firings=6, horizon=3, clamps=(0.0, 1.0, 4.0), tokens=3, prompt_tokens=4, continuation_tokens=3)
TEXTS = [f" {chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(64)]


class Text:
    """A corpus in memory, stored and encoded: a document per context."""

    def __init__(self, loaded, sae, hook, silent=(), n_contexts=CONTEXTS):
        hooks = SaeHooks.parse(hook)
        self.loaded, self.sae, self.hook = loaded, sae, hook
        ids = torch.randint(6, 64, (n_contexts, LENGTH), generator=torch.Generator().manual_seed(2))
        rows = {name: value.flatten(0, 1) for name, value in capture(loaded, ids, hooks.names).items()}
        codes = sae.encode(rows[hooks.source])
        codes[:, list(silent)] = 0
        self.dense = codes.numpy()
        self.document = np.repeat(np.arange(n_contexts), LENGTH).astype(np.int32)
        self.n_firings, self.massive = (self.dense > 0).sum(0), np.zeros(len(codes), bool)
        counted = np.arange(len(codes)) % LENGTH > 0
        self.shard = SimpleNamespace(
            n_rows=len(codes), context_length=LENGTH, tokens=ids.flatten().numpy(), document=self.document,
            counted=counted, read_rows=lambda name, start, stop: rows[name][start:stop],
        )  # fmt: skip

    def latents(self, start, stop):
        latent, row = self.dense[:, start:stop].T.nonzero()
        indptr = np.concatenate([[0], np.cumsum(np.bincount(latent, minlength=stop - start))])
        return LatentEntries(start, indptr, row, self.dense[row, latent + start])

    def measure(self, latents=None, settings=SETTINGS, **options):
        latents = np.arange(LATENTS) if latents is None else np.array(latents)
        allowed = allowed_rows(self.loaded, [self.shard], self.massive, settings.horizon)
        firings = choose_firings(self, allowed, latents, settings.firings, 0)
        others = other_latents(self.sae.W_dec, self.n_firings, latents)
        found = measure(
            self.loaded, self.sae, self.hook, [self.shard], allowed, firings, others, settings, 0, **options
        )
        return found, firings, others


def sparse_sae(seed=0, is_transcoder=False):
    """Each latent fires on about half of the rows."""
    sae = draw_sae(seed=seed, is_transcoder=is_transcoder)
    return dataclasses.replace(sae, b_enc=torch.zeros(LATENTS), b_dec=torch.zeros(WIDTH))


def text_of(model_type="llama", hook="resid_post.1", sae=None, **options) -> Text:
    loaded = build(model_type, initializer_range=0.2)
    return Text(loaded, sae or sparse_sae(is_transcoder="-to-" in hook), hook, **options)


@pytest.mark.parametrize("hook", ["resid_post.1", "mlp_out.1", "mlp_in.0-to-mlp_out.1"])
def test_what_is_measured_is_what_an_intervention_at_the_firing_does(hook):
    text = text_of(hook=hook)
    found, firings, _ = text.measure([3, 8])
    apart, *_ = text.measure([3, 8], join=False)
    assert (found.method, apart.method) == ("branches of one pass", "a pass per branch")
    for name in ("kl", "loss", "kl_random", "kl_other", "kl_after", "kl_whole"):
        one, other = (each.firings[name].to_numpy() for each in (found, apart))
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-3)
    ids = torch.from_numpy(text.shard.tokens).view(CONTEXTS, LENGTH)
    own = found.firings.set_index(["latent", "document"])
    for firing in firings:
        for row, document in zip(firing.row, firing.document, strict=True):
            context, position = divmod(int(row), LENGTH)
            where = torch.arange(LENGTH)[None] == position
            clamps = {
                0.0: Change.of("ablate", firing.latent),
                4.0: Change.of("clamp", firing.latent, 4 * firing.largest),
            }
            for clamp, change in clamps.items():
                changed = Intervention.of(text.loaded, text.sae, hook, change, where)
                logs = [
                    intervened_logits(text.loaded, ids[context : context + 1], each)[0].double().log_softmax(-1)
                    for each in (None, changed)
                ]
                kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
                assert kl[:position].abs().max() < 1e-6  # what comes before is not touched
                doses = found.doses.query("latent == @firing.latent and document == @document and clamp == @clamp")
                assert doses.kl.item() == pytest.approx(kl[position].item(), rel=1e-2, abs=1e-5)
                if clamp == 0:
                    after = kl[position + 1 : position + 3].mean().item()
                    assert own.kl_after[firing.latent, document] == pytest.approx(after, rel=1e-2, abs=1e-5)
                    target = ids[context, position + 1]
                    loss = (logs[0] - logs[1])[position, target].item()
                    assert own.loss[firing.latent, document] == pytest.approx(loss, rel=1e-2, abs=1e-5)
    assert found.firings.kl_silent.max() < 1e-6


def test_a_direction_that_nothing_reads_has_no_effect():
    """Layer norms take the mean away: a latent that adds the same to all values is orthogonal to all that follows."""
    sae = sparse_sae()
    sae.W_dec[5] = WIDTH**-0.5
    text = text_of("gpt_neox", sae=sae)
    found, firings, others = text.measure([4, 5])
    rows = effect_rows(found, firings, others).set_index("latent")
    assert rows.kl[5] < 1e-6 < 1e-4 < rows.kl[4]
    assert rows.kl_random[5] > 1e-4
    assert rows.verdict[5] == NOT_BEYOND
    assert dose_rows(found).query("latent == 5").kl.max() < 1e-6


def test_a_planted_edit_of_the_head_is_ranked_first():
    """In each trial the head reads one latent's direction as one token: both are found, each as the first.

    Directions are at right angles: the head reads no other latent's.
    """
    found_token, found_latent = 0, 0
    for trial in range(40):
        generator = torch.Generator().manual_seed(trial)
        sae = sparse_sae(seed=trial)
        sae = dataclasses.replace(sae, W_dec=torch.linalg.qr(sae.W_dec.T)[0].T.contiguous())
        text = text_of(hook="resid_post.2", sae=sae, n_contexts=4)
        latent, token = (int(torch.randint(6, high, (), generator=generator)) for high in (LATENTS, 64))
        with torch.no_grad():
            text.loaded.model.get_output_embeddings().weight[token] += 3 * sae.W_dec[latent]
        found, firings, _ = text.measure(settings=Causal(firings=3, horizon=2, clamps=(0.0, 4.0)))
        tokens = token_rows(found, firings, TEXTS, 1)
        first = tokens.query("latent == @latent and which == 'promoted' and dictionary == 'sae'")
        found_token += first.token.tolist() == [token]
        lifts = mean_lifts(found)[0, :, token].nan_to_num(-1.0)
        found_latent += int(lifts.argmax()) == latent
    assert found_token >= 38
    assert found_latent >= 38


def test_effects_stand_beside_their_nulls_and_silent_latents_say_why():
    text = text_of(silent=[7], n_contexts=24)
    stated = {latent: [latent + 6] for latent in range(LATENTS)}
    with torch.no_grad():  # what latent 3 is said to promote it does promote
        text.loaded.model.get_output_embeddings().weight[9] += text.sae.W_dec[3]
    settings = SETTINGS.model_copy(update={"firings": 16})
    found, firings, others = text.measure(settings=settings, stated=stated)
    rows = effect_rows(found, firings, others).set_index("latent")
    assert (rows.verdict[7], rows.reason[7], rows.n_measured[7]) == (UNMEASURED, NEVER, 0)
    assert (
        rows.loc[rows.index != 7, ["kl", "kl_low", "kl_high", "kl_random", "kl_other", "share_of_whole"]]
        .notna()
        .all(axis=None)
    )
    assert rows.verdict[3] == BEYOND
    assert rows.stated_lift_over_random_low[3] > 0
    assert rows.kl_twin.isna().all()
    assert rows.kl_twin_reason.notna().all()
    assert (rows.verdict == NOT_BEYOND).sum() > LATENTS / 2  # random directions do no more than random directions
    summary = summarise(found.firings, found.method, rows.reset_index())
    assert (summary["n_latents"], summary["n_measured"]) == (LATENTS, LATENTS - 1)
    assert summary["kl_low"] <= summary["kl"] <= summary["kl_high"]
    assert summary["silent_above_noise"] == 0
    tokens = token_rows(found, firings, TEXTS, 3)
    assert 7 not in set(tokens.latent)
    assert tokens.query("latent == 3 and which == 'promoted' and dictionary == 'sae'").token.iloc[0] == 9
    assert promoted_columns(tokens).set_index("latent").promoted_lift[3] > 1e-3


def test_the_strongest_twin_stands_beside_a_latent():
    """A twin with the SAE's own decoder does what the latent does; one whose latents nothing reads does nothing."""
    text = text_of("gpt_neox", n_contexts=8)
    unread = torch.full((LATENTS, WIDTH), WIDTH**-0.5)  # layer norms take the mean away
    twins = {"frozen_decoder": unread, "frozen_encoder": 3 * text.sae.W_dec}
    found, firings, others = text.measure([3, 4, 5], twins=twins)
    assert found.firings.kl_twin_frozen_decoder.max() < 1e-6
    np.testing.assert_allclose(found.firings.kl_twin_frozen_encoder, found.firings.kl, atol=1e-5, rtol=1e-3)
    rows = effect_rows(found, firings, others)
    assert set(rows.twin) == {"frozen_encoder"}
    assert rows.kl_twin_reason.isna().all()
    np.testing.assert_allclose(rows.kl_twin, rows.kl, atol=1e-5, rtol=1e-3)
    assert (rows.kl_over_twin_low <= rows.kl_over_twin).all() and (rows.kl_over_twin.abs() < 1e-4).all()
    summary = summarise(found.firings, found.method, rows, found.twins)
    assert summary["twin"] == "frozen_encoder"
    assert summary["kl_twin"] == pytest.approx(summary["kl"], rel=1e-3)
    alone, *_ = text.measure([3, 4, 5], twins={"frozen_decoder": unread})
    rows = effect_rows(alone, firings, others)
    assert rows.kl_over_twin.to_numpy() == pytest.approx(rows.kl.to_numpy(), rel=1e-2)
    summary = summarise(alone.firings, alone.method, rows, alone.twins)
    assert summary["share_larger_than_twin"] == (rows.kl_over_twin_low > 0).mean()
    assert summary["kl_over_twin"] == pytest.approx(summary["kl"], rel=1e-2)
    silent = text_of(silent=range(LATENTS))
    nothing, firings, others = silent.measure(twins={"frozen_decoder": silent.sae.W_dec})
    assert set(effect_rows(nothing, firings, others).kl_twin_reason) == {NEVER}


def test_a_decoder_of_another_shape_is_no_twin(tmp_path):
    save_sae(sparse_sae(), tmp_path / "twin", {"model_name": "m", "hook_name": "resid_post.1"})
    larger = {"W_enc": torch.zeros(WIDTH, LATENTS + 1), "b_enc": torch.zeros(LATENTS + 1)}
    other = dataclasses.replace(sparse_sae(), W_dec=torch.zeros(LATENTS + 1, WIDTH), **larger)
    with pytest.raises(CausalError, match=r"twin: its decoder has shape \(24, 32\), the SAE's \(25, 32\)"):
        _twin_decoder(tmp_path / "twin", other)


def test_latents_of_too_few_documents_are_not_judged():
    """Three documents give no interval: "no effect" would be a finding that nobody made."""
    text = text_of(n_contexts=LEAST_CLUSTERS - 1)
    found, firings, others = text.measure([0, 1, 2])
    rows = effect_rows(found, firings, others)
    assert (rows.n_measured > 0).all() and rows.kl.notna().all() and rows.kl_low.isna().all()
    assert set(rows.verdict) == {UNMEASURED} and rows.reason.str.contains("fewer than 4 documents").all()
    summary = summarise(found.firings, found.method, rows)
    assert (summary["n_measured"], summary["share_beyond_random"]) == (0, None)


def test_nothing_at_all_to_measure_is_no_error():
    text = text_of(silent=range(LATENTS))
    found, firings, others = text.measure()
    rows = effect_rows(found, firings, others)
    assert set(rows.verdict) == {UNMEASURED}
    assert summarise(found.firings, found.method, rows)["n_measured"] == 0
    assert not len(dose_rows(found))
    assert not len(token_rows(found, firings, TEXTS, 3))


def test_a_clamp_that_overflows_is_named_and_the_others_stay():
    text = text_of()
    settings = SETTINGS.model_copy(update={"clamps": (0.0, 1.0, 1e30)})
    found, *_ = text.measure([3], settings)
    rows = dose_rows(found).set_index("clamp")
    assert rows.reason[1e30] == "the model overflows on 6 of 6 firings"
    assert rows.loc[1e30, ["kl", "kl_low", "kl_random", "loss"]].isna().all()
    assert rows.loc[[0.0, 1.0], ["kl", "kl_low", "kl_random", "loss"]].notna().all(axis=None)


def test_labels_are_asked_which_tokens_are_promoted():
    text = text_of()
    with torch.no_grad():
        text.loaded.model.get_output_embeddings().weight[9] += 5 * text.sae.W_dec[3]
    found, firings, _ = text.measure()
    names = [each.strip() for each in TEXTS]
    labels = {3: f'"{names[9]}", {names[0]}; promotes {names[9]}', 4: "no such word", 5: f"{names[12]}"}
    rows = label_rows(found, firings, labels, names, np.ones(64, bool), 0).set_index("latent")
    lift = mean_lifts(found)[0, 3].numpy()
    others = np.delete(np.arange(64), [0, 9])
    expected = (1 + (lift[0] > lift[others]).mean()) / 2
    assert rows.label_auc[3] == pytest.approx(expected)
    assert rows.label_auc_fires[3] == pytest.approx(expected)
    assert np.isnan(rows.label_auc[4])
    assert np.isnan(rows.label_auc[6])
    assert 0 <= rows.label_auc[5] <= 1


def test_firings_are_of_as_many_documents_as_there_are():
    text = text_of()
    allowed = allowed_rows(text.loaded, [text.shard], text.massive, 3)
    assert not allowed.reshape(CONTEXTS, LENGTH)[:, [0, 13, 14, 15]].any()
    for own in choose_firings(text, allowed, np.arange(LATENTS), 6, 0):
        every = np.flatnonzero((text.dense[:, own.latent] > 0) & allowed)
        assert own.n_firings == len(every)
        assert set(own.row) <= set(every)
        assert len(set(own.document)) == min(6, len(set(text.document[every])))
        assert own.largest == text.dense[every, own.latent].max(initial=0)


def test_the_other_latent_fires_as_often_and_is_no_copy():
    W_dec = torch.eye(5, 8)
    W_dec[1] = W_dec[0] + 0.1 * W_dec[2]
    rates = np.array([100, 101, 0, 120, 5000])
    assert other_latents(W_dec, rates, np.arange(5)).tolist() == [3, 3, 0, 1, 3]
    assert other_latents(W_dec[:2], rates[:2], np.arange(2)).tolist() == [-1, -1]


def test_a_hybrid_is_measured_and_an_encoder_refused():
    found, *_ = text_of("nemotron_h").measure([3])
    assert found.method == "a pass per branch"
    assert found.firings.kl.notna().all()
    with pytest.raises(CausalError, match="'masked_lm': effects are measured on the next token"):
        encoder = build("bert", "masked_lm")
        allowed_rows(encoder, [], np.zeros(0, bool), 3)
    text = text_of()
    with pytest.raises(CausalError, match=r"causal.horizon is 16: must be less than a context, 16 tokens"):
        allowed_rows(text.loaded, [text.shard], text.massive, 16)


def test_continuations_hold_what_a_clamp_does_and_name_what_overflows():
    text = text_of(silent=[7])
    decode = SimpleNamespace(batch_decode=lambda tokens, **_: [" ".join(map(str, row.tolist())) for row in tokens])
    loaded = SimpleNamespace(**{**vars(text.loaded), "tokenizer": decode})
    for name in ("base", "dtype", "objective"):
        setattr(loaded, name, getattr(text.loaded, name))
    allowed = allowed_rows(text.loaded, [text.shard], text.massive, 3)
    firings = choose_firings(text, allowed, np.array([3, 7]), 6, 0)
    tokens = torch.from_numpy(text.shard.tokens)
    rows = continue_texts(loaded, text.sae, text.hook, tokens, LENGTH, firings, SETTINGS)
    assert rows.latent.tolist() == [3, 3, 3]
    assert rows.clamp.tolist() == [0, 1, 4]
    assert rows.reason.isna().all()
    assert rows.kl.is_monotonic_increasing
    own = rows.prompt.iloc[0].split()
    assert len(own) == 4
    assert len(rows.text.iloc[0].split()) == 3
    far = [pd.Series(firings[0].__dict__).to_dict() | {"largest": 1e25}]
    rows = continue_texts(loaded, text.sae, text.hook, tokens, LENGTH, [type(firings[0])(**far[0])], SETTINGS)
    assert rows.kl.isna().tolist() == [False, True, True]
    assert "the state overflows there" in rows.reason.iloc[1]
