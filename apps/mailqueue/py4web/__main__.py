"""One worker process: python -m mailqueue.py4web APPS_FOLDER APP_NAME, as `mailqueue worker` starts it.

It ends in good order when its standard input does; exit codes are those of supervisor.py.
"""

from __future__ import annotations

import logging
import sys

import click

from ..errors import MailQueueError
from ..supervisor import NOTHING_TO_SERVE
from .worker import end_process, work


def main() -> None:
    """Work."""
    logging.basicConfig(format="%(asctime)s [%(process)d] %(levelname)s %(message)s")
    logging.getLogger("mailqueue").setLevel(logging.INFO)
    try:
        status = work(*sys.argv[1:])
    except MailQueueError as error:
        click.echo(f"Error: {error}", err=True)
        status = NOTHING_TO_SERVE
    end_process(status)


main()
