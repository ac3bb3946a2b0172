#!/usr/bin/env bash
# PyYAML 6.0.3, which Snakemake reads its configuration with.
# Guess: `24:00:00`, SLURM's notation for a day, is text, or an error.
# Seen: an integer in base 60, as YAML 1.1 has it: 24:00:00 is 86400, which SLURM reads as 86400 minutes: 60 days.
#   30:00 is 1800; but 08:00:00 and 24:00:60 stay text, as a first digit 0 and a part above 59 are no such integer.
# Remedy: quote time limits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check PyYAML==6.0.3
"$folder/venv/bin/python" - <<'PYTHON'
import yaml

found = yaml.safe_load("{a: 24:00:00, b: 30:00, c: 08:00:00, d: '24:00:00', e: 1-00:00:00, f: 24:00:60}")
print(found)
assert found == {"a": 86400, "b": 1800, "c": "08:00:00", "d": "24:00:00", "e": "1-00:00:00", "f": "24:00:60"}
PYTHON
# Output: {'a': 86400, 'b': 1800, 'c': '08:00:00', 'd': '24:00:00', 'e': '1-00:00:00', 'f': '24:00:60'}
echo "as found: an unquoted time limit of a day is the number 86400"
