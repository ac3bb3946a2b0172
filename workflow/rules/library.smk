# Puts the library on the path, and checks the YAML files that this call reads: before `configfile:`, whose own error
# names neither file nor line, and which keeps the last of two equal keys. (A file of `--configfile` that is no YAML at
# all ends the call before this: docs/faq.md.)
import contextlib
import io
import os
import sys
from pathlib import Path

# Not workflow.basedir: that is the folder of the Snakefile that was called, which may only include this workflow.
LIBRARY = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(LIBRARY))

from atlas.errors import ConfigError
from atlas.yaml_files import read_yaml


def call_arguments():
    """Arguments and profile files of the command line; None and [] where another program calls Snakemake's library.

    Snakemake tells a workflow neither its profile nor, before all is planned, the settings of its executor.
    """
    from snakemake.cli import parse_args

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the profile in use is already printed
            parser, arguments = parse_args(sys.argv[1:])
    except SystemExit:  # these are no arguments of Snakemake's
        return None, []
    return arguments, [path for path in getattr(parser, "_default_config_files", []) if os.path.exists(path)]


CALL, PROFILES = call_arguments() if workflow.is_main_process else (None, [])

if workflow.is_main_process:
    try:
        for path in dict.fromkeys([*workflow.configfiles, *filter(os.path.exists, ["config/config.yaml"]), *PROFILES]):
            read_yaml(path)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
