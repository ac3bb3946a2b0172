# What figures of sizes look up: studies that are a grid of latents and k at one hook.
from atlas.config.grid import is_grid

GRIDS = [name for name, rows in STUDIES.items() if is_grid(rows)]
GRID_STUDIES = only(GRIDS)
