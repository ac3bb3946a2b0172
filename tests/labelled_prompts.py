"""A folder of labelled prompts as the sae-probes wheel has one."""

import pandas as pd
import pyarrow as pa

from atlas.probing.datasets import INDEX


def write(path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.output_stream(path, compression="zstd") as stream:
        stream.write(frame.to_csv(index=False).encode())


def folder_of(root, frames: dict[str, pd.DataFrame]):
    rows = [{"Dataset save name": f"cleaned_data/{name}.csv", "Data type": "Binary Classification"} for name in frames]
    rows.append({"Dataset save name": "cleaned_data/other.csv", "Data type": "Continuous Data"})
    write(root / INDEX, pd.DataFrame(rows))
    for name, frame in frames.items():
        write(root / "cleaned_data" / f"{name}.csv.zst", frame)
    return root
