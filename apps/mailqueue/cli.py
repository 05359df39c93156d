"""The command `mailqueue`."""

from __future__ import annotations

import logging
import signal
import sys

import click

from .errors import MailQueueError
from .version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailqueue")
def main() -> None:
    """An outbound mail queue for py4web and web2py."""


@main.command()
@click.option("--check", is_flag=True, help="Walk the story, say what is seen, exit 0 if all of it held.")
@click.option("--port", default=8000, show_default=True, help="The site's port; the next free one if taken.")
@click.option("--smtp-port", default=0, help="The mail catcher's port; any free one by default.")
@click.option("--inbox-port", default=0, help="The port of its inbox; any free one by default.")
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
