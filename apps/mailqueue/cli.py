"""The command `mailqueue`."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import click

from .errors import BadTemplate, MailQueueError
from .version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailqueue")
def main() -> None:
    """An outbound mail queue for py4web and web2py."""


_PORT, _PORT_OR_0 = click.IntRange(1, 65535), click.IntRange(0, 65535)


@main.command()
@click.option("--check", is_flag=True, help="Walk the story, say what is seen, exit 0 if all of it held.")
@click.option(
    "--port", type=_PORT, default=8000, show_default=True, help="The site's port; the next free one if taken."
)
@click.option(
    "--smtp-port", type=_PORT_OR_0, default=0, help="The mail catcher's port; any free one by default."
)
@click.option(
    "--inbox-port", type=_PORT_OR_0, default=0, help="The port of its inbox; any free one by default."
)
@click.option("--folder", type=click.Path(file_okay=False), help="Keep the site's state there.")
def demo(check: bool, port: int, smtp_port: int, inbox_port: int, folder: str | None) -> None:
    """Run a small site and a mail catcher on this machine, to try everything by hand."""
    from .demo import Check, running

    if check and folder:
        raise click.UsageError("--check walks through a fresh site: leave out --folder")
    stopped = 1 if check else 0  # a check that was cut short did not hold
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(stopped))  # so that what was started is ended
    try:
        with running(port, smtp_port, inbox_port, folder) as site:
            if check:
                sys.exit(0 if Check(site, click.echo).run() else 1)
            click.echo(site.story())
            signal.pause()
    except KeyboardInterrupt:
        click.echo("\nStopped.")
        sys.exit(stopped)
    except (MailQueueError, RuntimeError, OSError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("apps_folder")
@click.argument("app_name")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="How many send.")
def worker(apps_folder: str, app_name: str, processes: int) -> None:
    """Send the mail of the py4web app APP_NAME in APPS_FOLDER until it is told to stop.

    It starts worker processes, which load the app and serve its QueuedMailer, each in a thread of its own
    if there are several, over as many connections as the mailer says. One that dies is replaced, after a
    pause that grows. Run as many as you like, on as many machines as you like; let the app load with
    USE_SCHEDULER = False here.

    On SIGTERM or SIGINT no further message is begun, those at hand are finished, and it exits within a few
    seconds; a second signal ends it at once. On SIGHUP fresh processes take over, which load the app and its
    settings anew. Nothing is lost either way.

    \b
    Exit codes:
      0  it ended as it was told to
      1  a worker process did not end in good order
      2  wrong usage, or there is no such app, it cannot be loaded, or it makes no QueuedMailer
    """
    from .supervisor import supervise

    logging.basicConfig(format="%(asctime)s [%(process)d] %(levelname)s %(message)s")
    logging.getLogger("mailqueue").setLevel(logging.INFO)
    sys.exit(supervise([sys.executable, "-m", "mailqueue.py4web", apps_folder, app_name], processes))


@main.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="web2py.plugin.mailqueue.w2p",
    show_default=True,
    help="The file; web2py takes it under this name only.",
)
def web2py_pack(out: Path) -> None:
    """Make the plugin for web2py as one file, for "Upload and install plugin" of web2py's admin."""
    from .web2py import pack

    try:
        pack.write(out)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {out.stat().st_size / 1024:.0f} kB")


@main.command()
@click.argument("apps_folder")
@click.argument("app_name")
@click.option("--json", "json", is_flag=True, help="One JSON object, for monitoring.")
@click.option("--quiet", is_flag=True, help="Problems only; nothing where all is well.")
@click.option("--nameserver", metavar="ADDRESS[:PORT]", help="Ask this one instead of the system's.")
@click.option("--selector", help="Of the DKIM key that the mail is signed with.")
def check(
    apps_folder: str, app_name: str, json: bool, quiet: bool, nameserver: str | None, selector: str | None
) -> None:
    """Say what is wrong with the mail of the py4web app APP_NAME in APPS_FOLDER, and what to do.

    It loads the app, connects to each mail server and logs in as a worker does, without sending anything,
    and looks at certificates, at what the servers offer, at whether they let the site's address send; at
    what the DNS says of the sender's domain; at what links in mails begin with, at whether anybody sends,
    and at the open entries of the problem log. Load the app with USE_SCHEDULER = False here.

    \b
    Exit codes:
      0  all is well
      1  something is wrong
      2  wrong usage, or there is no such app, it cannot be loaded, or it makes no QueuedMailer
    """
    from .check import Wanted
    from .findings import error_as_json
    from .py4web.check import run
    from .py4web.worker import end_process

    try:
        status = run(apps_folder, app_name, click.echo, Wanted(nameserver, selector), json=json, quiet=quiet)
    except MailQueueError as error:
        click.echo(f"Error: {error}", err=True)
        if json:
            click.echo(error_as_json(error))
        status = 2
    end_process(status)


main.add_command(check, "doctor")  # what it was called before


@main.command()
@click.option("--check", is_flag=True, help="Compare it with the code; exit 1 where they differ.")
def manifest(check: bool) -> None:
    """Print the plugin's manifest, or compare it with the code."""
    from .manifest import differences, manifest_text

    try:
        if not check:
            click.echo(manifest_text(), nl=False)
            return
        found = differences()
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the manifest cannot be read: {error}") from error
    for line in found:
        click.echo(line)
    if found:
        sys.exit(1)
    click.echo("The manifest and the code agree.")


@main.group()
def templates() -> None:
    """The mails made of templates: which there are, and how they look."""


_APP = click.option(
    "--app",
    type=click.Path(exists=True, file_okay=False),
    help="The folder of an app, whose own templates go before the shipped ones.",
)


@templates.command("list")
@_APP
def list_templates(app: str | None) -> None:
    """List the templates and the languages."""
    from .rendering import templates_of

    found = templates_of(app)
    click.echo("\n".join(found.names()))
    click.echo(f"Languages: {' '.join(found.languages())}")


@templates.command("preview")
@click.argument("name", required=False)
@click.option("--language", default="en", show_default=True, help="Such as de.")
@click.option("--format", "form", type=click.Choice(["html", "text", "subject"]), default="html")
@click.option("--out", type=click.Path(path_type=Path), help="A file; without NAME, a folder for all mails.")
@_APP
def preview_template(name: str | None, language: str, form: str, out: Path | None, app: str | None) -> None:
    """Show the mail NAME as it will look; without NAME, write all mails in all languages into a folder.

    The variables are made up. For a template of your own put some into NAME.json beside it.
    """
    from . import preview
    from .rendering import templates_of

    found = templates_of(app)
    try:
        if name:
            mail = preview.preview(found, name, language)
            if mail.fault:
                click.echo(f"{mail.fault}. The shipped one is shown.", err=True)
            with click.open_file(str(out or "-"), "w", encoding="utf-8") as stream:
                stream.write(preview.shown(mail, form))
        elif out:
            click.echo(f"{len(preview.write_all(found, out))} files written to {out}.")
        else:
            raise click.UsageError("name a template, or give a folder for all of them: --out FOLDER")
    except (BadTemplate, OSError) as error:
        raise click.ClickException(str(error)) from error
