"""List failed jobs, their errors and logs, for the last lines of a run."""

import re
from pathlib import Path

# What `atlas.job` writes; a traceback follows an unexpected error.
_ERROR = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR (.*)$")
_READ = 65_536  # bytes from the end of a log: an error is the last that a job says
_LONGEST = 500


def failed_since(logs: Path, started: float) -> list[str]:
    """Lines with log and error of each job that failed at or after `started` (seconds since 1970), the first first."""
    written = [path for path in logs.rglob("*.log") if path.stat().st_mtime >= started]
    found = [(path, _error(path)) for path in sorted(written, key=lambda path: path.stat().st_mtime)]
    return [f"{path}: {error}" for path, error in found if error]


def _error(path: Path) -> str | None:
    """The last error of a log; of an unexpected one, the last line of its traceback too."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _READ))
        lines = stream.read().decode(errors="replace").splitlines()
    for place in reversed(range(len(lines))):
        if match := _ERROR.match(lines[place]):
            followed = [line for line in lines[place + 1 :] if line.strip()]
            said = f"{match[1]}: {followed[-1].strip()}" if followed else match[1]
            return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} …"
    return None
