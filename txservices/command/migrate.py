"""``txservices migrate``: what will change for code that was written for nameko, and writing what can be written."""

from __future__ import annotations

import os
import sys
import tokenize
from collections.abc import Iterator

import click

from txservices.command import settings
from txservices.configuration import mistyped
from txservices.exceptions import CommandError
from txservices.migration.checking.configs import of_configuration
from txservices.migration.checking.findings import Report, edited
from txservices.migration.checking.reading import read, serves_http
from txservices.migration.checking.report import STATUS, as_json, diff, lines, worst

FILE_MAX = 5_000_000  # bytes of a file that is read
LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "build", "dist"}

path_argument = click.argument("path", type=click.Path(exists=True), metavar="PATH")


@click.group()
def migrate() -> None:
    """See what will change for code that was written for nameko, and write the changes."""


@migrate.command()
@path_argument
@click.option("-c", "--config", "config", type=click.Path(exists=True, dir_okay=False), metavar="FILE")
@click.option("--json", "to_json", is_flag=True, help="Print a JSON object.")
@click.option("--diff", "with_diff", is_flag=True, help="Show the changes that `migrate apply` would write.")
def check(path: str, config: str | None, to_json: bool, with_diff: bool) -> None:
    """Read a file or a folder, without importing it, and say what runs and what has to change.

    The exit status is 0 if all of it runs, at least with --nameko; 3 if something wants a change; 4 if something can't
    be.
    """
    reports, sources = [], {}
    http = False
    for each in files(path):
        text = source_of(each)
        sources[each] = text
        reports.append(read(each, text))
        http = http or serves_http(text)
    if config is not None:
        reports.append(read_configuration(config, http))
    if to_json:
        click.echo(as_json(reports))
    else:
        for line in lines(reports):
            click.echo(line)
    if with_diff:
        for report in reports:
            click.echo(diff(report, sources[report.path]) if report.path in sources else "", nl=False)
    sys.exit(STATUS[worst(reports)])


@migrate.command("apply")
@path_argument
@click.option("--write", is_flag=True, help="Write the files. Without it the changes are shown as a diff.")
def apply_changes(path: str, write: bool) -> None:
    """Change the imports, and write `await` where that is safe, or `blocking = True`.

    Formatting stays as it is.
    """
    changed = 0
    for each in files(path):
        text = source_of(each)
        report = read(each, text)
        if not report.edits:
            continue
        changed += 1
        if write:
            with open(each, "w", encoding=encoding_of(each), newline="") as file:
                file.write(edited(text, report.edits))
            click.echo(f"{each}: {len(report.edits)} changes")
        else:
            click.echo(diff(report, text), nl=False)
    if not changed:
        click.echo("nothing to change")


def files(path: str) -> Iterator[str]:
    """The Python files of a folder, in order, or the one file."""
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each not in LEFT_OUT)
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(".py"))


def encoding_of(path: str) -> str:
    with open(path, "rb") as file:
        return tokenize.detect_encoding(file.readline)[0]


def source_of(path: str) -> str:
    """The text of a file, with its line ends as they are. ``CommandError`` if it is no text."""
    if os.path.getsize(path) > FILE_MAX:
        raise CommandError(f"{path} has more than {FILE_MAX:,} bytes: it is no module; leave it out")
    try:
        with open(path, encoding=encoding_of(path), newline="") as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} can't be read as text: {error}") from None


def read_configuration(path: str, http: bool) -> Report:
    """The report of a configuration file."""
    report = Report(path)
    config = settings.load(path)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = {line.partition(":")[0].strip("'\" "): number for number, line in enumerate(text.splitlines(), 1)}
    report.findings = sorted(of_configuration(config, found, http, mistyped(config)))
    return report
