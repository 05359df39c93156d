"""A Django without a project around it, for the peers that need one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .base import Contender


def configure(contender: Contender, apps: list[str], **settings: Any) -> None:
    """Set Django up on the contender's database, if it has one, and create the tables."""
    import django
    from django.conf import settings as django_settings
    from django.core.management import call_command

    django_settings.configure(
        DATABASES={"default": _database(contender)} if contender.url else {},
        INSTALLED_APPS=["django.contrib.contenttypes", *apps],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=True,
        DEBUG=False,
        SECRET_KEY="bench",
        EMAIL_HOST=contender.host,
        EMAIL_PORT=contender.port,
        EMAIL_TIMEOUT=60,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "root": {"handlers": [], "level": "WARNING"},
            "loggers": {"post_office": {"level": "WARNING", "handlers": [], "propagate": False}},
        },
        **settings,
    )
    django.setup()
    if contender.url:
        call_command("migrate", verbosity=0)


def _database(contender: Contender) -> dict[str, Any]:
    url = urlsplit(contender.url)
    if url.scheme == "sqlite":
        options: dict[str, Any] = {"timeout": 30}
        if contender.wal:
            options["init_command"] = "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;"
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url.path, "OPTIONS": options}
    place = {
        "NAME": url.path[1:],
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.hostname,
        "PORT": url.port,
        "CONN_MAX_AGE": None,
    }
    if url.scheme == "postgres":
        return {"ENGINE": "django.db.backends.postgresql", **place}
    import pymysql  # the driver that pydal uses too

    pymysql.install_as_MySQLdb()
    return {"ENGINE": "django.db.backends.mysql", **place, "OPTIONS": {"charset": "utf8mb4"}}
