"""Rows made of known features at several hooks, and SAEs that fit them: in closed form, without training."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from atlas.published import Published
from atlas.published.audit import AuditRows
from atlas.training.sae import Sae

D, DOCUMENTS, TOKENS = 48, 40, 25
HOOKS = ("resid_post.2", "resid_post.3", "resid_post.4", "mlp_out.3", "mlp_out.4")
# What the MLP of block 4 adds depends on the features before it: a transcoder has something to find.
CAUSES = {"mlp_out.4": "resid_post.3"}


@dataclass(frozen=True)
class Planted:
    rows: AuditRows
    codes: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]

    @property
    def kept(self) -> torch.Tensor:
        return torch.from_numpy(self.rows.counted)


def planted(n_features: int = 96, seed: int = 0) -> Planted:
    """Each hook has its own features and mean; neighbours share half of each row. First tokens are massive."""
    generator = torch.Generator().manual_seed(seed)
    n = DOCUMENTS * TOKENS
    position = np.tile(np.arange(TOKENS), DOCUMENTS)
    features, codes, by_hook, before = {}, {}, {}, torch.zeros(n, D)
    for hook in HOOKS:
        unit = torch.nn.functional.normalize(torch.randn(n_features, D, generator=generator), dim=1)
        active = torch.rand(n, n_features, generator=generator) < 4 / n_features
        strength = active * (1 + torch.rand(n, n_features, generator=generator))
        strength = codes[CAUSES[hook]] / 4 if hook in CAUSES else strength
        mean = 1.5 * torch.randn(D, generator=generator)
        noise = 0.05 * torch.randn(n, D, generator=generator)
        rows = 4 * (strength @ unit) + mean + noise + 0.5 * before
        before = rows - mean
        sink = torch.nn.functional.normalize(torch.randn(D, generator=generator), dim=0)
        rows[position == 0] = 80 * sink + torch.randn(DOCUMENTS, D, generator=generator)
        features[hook], codes[hook], by_hook[hook] = unit, 4 * strength, rows
    audit_rows = AuditRows(by_hook, np.repeat(np.arange(DOCUMENTS), TOKENS), position, position > 0)
    return Planted(audit_rows, codes, features)


def fitted(
    data: Planted, architecture: str, hook: str = "resid_post.3", target: str | None = None, lift: float = 0, **more
) -> Sae:
    """The SAE whose encoder best predicts the planted codes, and whose decoder best reconstructs from its latents.

    With `lift` pre-activations are in other units and above 0 where nothing is to fire, as trained selections leave
    them: half of the latents would pass a ReLU.
    """
    kept = data.kept
    rows, codes = data.rows.by_hook[hook][kept], data.codes[target or hook][kept]
    aim = data.rows.by_hook[target or hook][kept]
    subtracts = more.get("subtracts_b_dec", target is None)
    b_dec = aim.mean(dim=0)
    shape = Sae(architecture, torch.zeros(D, 1), torch.zeros(1), torch.zeros(1, aim.shape[1]), b_dec)
    unit = {"W_enc": torch.eye(D), "b_enc": torch.zeros(D), "W_dec": torch.zeros(D, aim.shape[1])}
    scaled = replace(shape, **unit, subtracts_b_dec=False, row_scale=more.get("row_scale"))
    inputs = scaled.pre_activations(rows) - (b_dec if subtracts else 0)
    design = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solved = torch.linalg.lstsq(design.double(), codes.double()).solution.float()
    n_latents = codes.shape[1]
    threshold = 1.5
    if lift:
        threshold, solved = 0.2 * (threshold + lift), 0.2 * (solved + lift * torch.eye(D + 1)[-1:].T)
    own = {
        "jumprelu": {"thresholds": torch.full((n_latents,), threshold)},
        "gated": {"r_mag": torch.zeros(n_latents), "b_mag": solved[-1]},
        "norm_topk": {"norms": torch.ones(n_latents)},
    }.get(architecture, {})
    has_threshold = "batch_topk" in architecture
    bias = solved[-1] - (1.5 if architecture == "gated" else 0.8 if architecture == "relu" else 0)
    sae = Sae(
        architecture,
        W_enc=solved[:-1],
        b_enc=bias,
        W_dec=torch.zeros(n_latents, aim.shape[1]),
        b_dec=b_dec,
        k=8 if "topk" in architecture or architecture == "group_max" else None,
        threshold=threshold if has_threshold else None,
        latent_parameters=own,
        is_transcoder=target is not None,
        **more,
    )
    latents = sae.encode(rows)
    wanted = aim - b_dec
    if sae.row_scale is not None:
        wanted = inputs
    elif sae.W_skip is not None:
        wanted = wanted - rows @ sae.W_skip
    W_dec = torch.linalg.lstsq(latents.double(), wanted.double(), driver="gelsd").solution.float()
    return replace(sae, W_dec=W_dec)


def published(sae: Sae, hook: str = "resid_post.3", target: str | None = None, **alternatives) -> Published:
    return Published(sae, "saelens", {}, hook=hook, target_hook=target, alternatives=alternatives)
