"""A bfloat16 model on a CPU without bfloat16 instructions: torch's emulation, products widened to float32, and float32.

    python benchmarks/widened.py --layers 4 --rounds 3

Random weights in the shape of the embedded model, fewer layers; tokens a second of the blocks, without the head. On a
CPU that has the instructions the first way is the fast one, and nothing is widened.
"""

import argparse

import torch
from gpu import CPU, alternate, random_model, rates, ratio

from atlas.devices import fast_matmul_dtype, use_threads
from atlas.models import widened
from atlas.models.forward import final_hidden

SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 1024,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    tokens = torch.randint(SHAPE["vocab_size"], (8, 256), generator=torch.Generator().manual_seed(0))
    fields = SHAPE | {"num_hidden_layers": arguments.layers}
    models = {way: random_model("llama", fields, "bfloat16", CPU) for way in ("as torch has it", "widened")}
    models["float32"] = random_model("llama", fields, "float32", CPU)
    has_bfloat16 = fast_matmul_dtype(CPU) == torch.bfloat16
    widened.product_dtype = lambda dtype, device: torch.float32  # on any machine, to compare
    widened.widen_products(models["widened"].model, CPU)
    taken = alternate(
        {way: lambda m=model: final_hidden(m, tokens) for way, model in models.items()}, arguments.rounds, CPU
    )
    print(f"this CPU has {'' if has_bfloat16 else 'no '}bfloat16 instructions")
    for name, value in rates(taken, tokens.numel(), "tokens").items():
        print(f"{name:<28}{value:>10,.0f}")
    for way in ("as torch has it", "float32"):
        print(f"{way} over widened: {ratio(taken, way, 'widened'):.2f}")


if __name__ == "__main__":
    main()
