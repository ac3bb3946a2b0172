# Finds the library, puts it on the path, and checks the YAML files that this call reads: before `configfile:`, whose own
# error names neither file nor line, and which keeps the last of two equal keys. (A file of `--configfile` that is no YAML
# at all ends the call before this: docs/faq.md.)
import contextlib
import io
import os
import shlex
import sys
from pathlib import Path


def folder_on_disk(rules):
    """The folder `workflow` on this disk. A repository behind a git host is unpacked below .snakemake, once a commit."""
    if hasattr(rules, "__fspath__"):
        # Not workflow.basedir: that is the folder of the Snakefile that was called, which may only include this one.
        return Path(rules).parent
    if not hasattr(rules, "ref"):
        raise WorkflowError(
            f"{rules}: this workflow needs its whole repository, and a single address has one file; "
            'name it as snakefile: github("<owner>/<name>", path="workflow/Snakefile", tag="<tag>") '
            "(or gitlab, or git+file:), or clone it and give the path"
        )
    import tarfile
    import tempfile

    import git

    repository = git.Repo(rules.repo_path) if hasattr(rules, "repo_path") else rules.hosted_repo.repo
    commit = repository.commit(rules.ref).hexsha
    top = Path(rules.path).parent.parent
    target = Path(".snakemake", "sae-atlas", commit, top).absolute()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            with tempfile.TemporaryFile() as archive:
                repository.archive(archive, f"{commit}:{'' if top == Path() else top}", path=["workflow", "envs"])
                archive.seek(0)
                with tarfile.open(fileobj=archive) as content:
                    content.extractall(
                        Path(temporary, "tree"), **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
                    )
            try:
                Path(temporary, "tree").rename(target)
            except OSError:
                if not target.exists():  # else another job was faster
                    raise
    return target / "workflow"


# Snakemake writes this path into shell commands without quotes.
if shlex.quote(sys.executable) != sys.executable:
    raise WorkflowError(
        f"{sys.executable}: the path of the Python that runs Snakemake has a space or a sign that a shell reads, and no job "
        "could start; move the checkout, or its .venv, to a path of letters, digits and . _ - / only"
    )

# Whether another workflow uses this one as a module. (`modifier.is_module` is true of every Snakefile.)
IS_MODULE = not workflow.modifier.is_main_snakefile()
RULES = str(workflow.current_basedir)
LIBRARY = folder_on_disk(workflow.current_basedir)
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
        for path in dict.fromkeys(
            [
                *workflow.configfiles,
                *filter(os.path.exists, [] if workflow.modifier.skip_configfile else ["config/config.yaml"]),
                *PROFILES,
            ]
        ):
            read_yaml(path)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
