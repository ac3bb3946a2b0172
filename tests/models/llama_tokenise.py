"""Token ids that llama.cpp gives: ENVIRONMENT/bin/python -I llama_tokenise.py TEXTS.json MODEL.gguf …; prints JSON."""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import xllamacpp

texts = json.loads(Path(sys.argv[1]).read_text())
found = {}
for path in map(Path, sys.argv[2:]):
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.port = 64, 1, 0
    params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    found[path.stem] = []
    for text in texts:
        body = json.dumps({"content": text, "add_special": True, "parse_special": False}).encode()
        request = Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
        with urlopen(request) as answer:
            found[path.stem].append(json.load(answer)["tokens"])
    del server
print(json.dumps(found))
