"""Rows of training beside what they buy: every number comes from its table, and the figure shows each of them."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml

from atlas.budget.figure import TITLES, draw_budget, plot_budget
from atlas.budget.study_table import OF_METRICS, OF_USEFULNESS, QUANTITIES, write_budget_table
from atlas.errors import EvaluationError

mpl.use("Agg")
BUDGETS = {"short": 1_000, "long": 1_000_000}
SAES = [f"m/resid_post.1/chat/{recipe}/seed-{seed}" for recipe in BUDGETS for seed in (0, 1)]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def planted(name: str, recipe: str, seed: int) -> float:
    """Return a number that no other quantity, recipe and seed has."""
    return 0.1 + 0.01 * QUANTITIES.index(name) + 0.002 * list(BUDGETS).index(recipe) + 0.0005 * seed


class Study:
    """Run cards and two tables of a study with two budgets and two seeds."""

    def __init__(self, folder):
        self.folder, self.cards, metrics, useful = folder, {}, [], []
        for sae_id in SAES:
            recipe, seed = sae_id.split("/")[3], int(sae_id[-1])
            self.cards[sae_id] = folder / f"{recipe}-{seed}.yaml"
            self.write_card(sae_id, recipe, seed)
            who = {"study": "s", "model": "m", "hook": "resid_post.1", "target_hook": None, "mix": "chat"}
            who |= {"recipe": recipe, "seed": seed, "corpus": "chat"}
            row = who | {"role": "in_sample"}
            for name, quantity in OF_METRICS.items():
                value = planted(name, recipe, seed)
                row |= {quantity.value: value, f"{quantity.value}_interval_low": value - 0.001}
                row |= {f"{quantity.value}_interval_high": value + 0.001}
                row |= {quantity.floor: 0.01} if quantity.floor else {}
                row |= {quantity.twin: value - 0.05} if quantity.twin else {}
            metrics += [row | {"corpus": "news", "role": "oos"} | dict.fromkeys(row.keys() - who.keys()), row]
            row = who | {"outcome": "good", "learnt": "yes", "useful": "no"}
            for name in OF_USEFULNESS:
                value = planted(name, recipe, seed)
                row |= {f"{name}_value": value, f"{name}_floor": 0.02, f"{name}_ceiling": 0.9, f"{name}_word": "no"}
                row |= {f"{name}_interval_low": value - 0.001, f"{name}_interval_high": value + 0.001}
                row |= {f"{name}_over_twin": -0.03}
            useful.append(row)
        self.metrics, self.useful = pd.DataFrame(metrics), pd.DataFrame(useful)

    def write_card(self, sae_id: str, recipe: str, seed: int) -> None:
        drawn = BUDGETS[recipe]
        card = {"names": {"model": "m", "mix": "chat", "recipe": recipe}, "hook": "resid_post.1", "target_hook": None}
        card |= {"sae": {"n_latents": 64, "k": 4}, "optimisation": {"steps": drawn // 100, "batch_size": 100}}
        card |= {"tokens": {"rows_drawn": drawn, "rows_trainable": 50_000}, "seed": seed}
        self.cards[sae_id].write_text(yaml.safe_dump(card))

    def table(self) -> pd.DataFrame:
        self.metrics.to_csv(self.folder / "s.csv", index=False)
        self.useful.to_csv(self.folder / "s_usefulness.csv", index=False)
        target = self.folder / "s_budget.csv"
        write_budget_table("s", self.cards, self.folder / "s.csv", self.folder / "s_usefulness.csv", target)
        return pd.read_csv(target)


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path)


def test_every_number_is_of_its_sae_on_its_corpus(study):
    rows = study.table()
    assert rows["rows"].tolist() == [1_000, 1_000, 1_000_000, 1_000_000]
    assert rows.distinct_rows.tolist() == [1_000, 1_000, 50_000, 50_000]  # the rest are visited again
    assert set(rows.corpus) == {"chat"}
    for row in rows.to_dict("records"):
        for name in QUANTITIES:
            value = planted(name, row["recipe"], row["seed"])
            found = [row[f"{name}_{part}"] for part in ("interval_low", "value", "interval_high")]
            assert found == pytest.approx([value - 0.001, value, value + 0.001])
        assert row["explained_variance_twin"] == pytest.approx(row["explained_variance_value"] - 0.05)
        assert row["coherence_twin"] == pytest.approx(row["coherence_value"] + 0.03)
        assert (row["coherence_floor"], row["coherence_ceiling"]) == (0.02, 0.9)
        assert pd.isna(row["delta_loss_floor"]) and pd.isna(row["silent_pct_twin"])


def test_a_card_of_another_sae_and_a_table_without_one_are_refused(study):
    study.write_card(SAES[0], "short", seed=1)
    with pytest.raises(EvaluationError, match=rf"short-0.yaml: is of SAE '{SAES[1]}', expected '{SAES[0]}'"):
        study.table()
    study.write_card(SAES[0], "short", seed=0)
    study.metrics = study.metrics[study.metrics.corpus != "chat"]
    with pytest.raises(EvaluationError, match=rf"s.csv has no row of {SAES[0]} on chat"):
        study.table()


def test_an_sae_without_usefulness_has_no_row(study):
    study.useful = study.useful[study.useful.recipe == "long"]
    assert set(study.table().recipe) == {"long"}


def test_each_panel_shows_seeds_their_mean_twin_and_ends(study, tmp_path):
    rows = study.table()
    figure = plot_budget(rows)
    axes = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in axes] == list(TITLES.values())
    for axis, name in zip(axes, TITLES, strict=True):
        points = [line for line in axis.lines if line.get_marker() == "o"]
        assert sorted(points[0].get_ydata()) == sorted(rows[f"{name}_value"])
        means = rows.groupby("rows")[f"{name}_value"].mean()
        lines = [line.get_ydata() for line in axis.lines if line.get_marker() == "None"]
        assert any(len(line) == 2 and line == pytest.approx(means.to_numpy()) for line in lines)
        assert axis.get_ylim()[0] <= 0 < rows[f"{name}_value"].max() < axis.get_ylim()[1]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1.0k", "1.0M"]
    targets = [tmp_path / f"s_budget.{suffix}" for suffix in ("pdf", "png", "txt")]
    draw_budget(tmp_path / "s_budget.csv", targets)
    assert all(path.stat().st_size > 100 for path in targets)
    assert "trained on 1,000 and 1,000,000 rows" in targets[2].read_text().replace("\n", " ")


def test_panels_without_a_value_are_left_out_and_one_budget_is_refused(study):
    rows = study.table().assign(labels_value=float("nan"), coherence_value=float("nan"))
    shown = [axis.get_title() for axis in plot_budget(rows).axes]
    assert shown == [title for name, title in TITLES.items() if name not in ("labels", "coherence")]
    with pytest.raises(EvaluationError, match="SAEs of one budget, 1,000 rows; expected two at least"):
        plot_budget(rows[rows.recipe == "short"])
    with pytest.raises(EvaluationError, match="has no value of"):
        plot_budget(rows.assign(**{f"{name}_value": float("nan") for name in TITLES}))
