"""The plugin as one file for web2py's own plugin_install, made from the package's sources."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

NAME = "web2py.plugin.mailqueue.w2p"  # web2py takes no other
PACKAGE = Path(__file__).resolve().parent.parent
MODULE = "modules/plugin_mailqueue"
_TEMPLATES = [PACKAGE / "templates" / folder for folder in ("mail", "admin")]
_TRANSLATIONS = PACKAGE / "translations"

# What only py4web, the command line and this file need.
_LEFT_OUT = frozenset(
    {
        "py4web",
        "standalone.py",
        "demo.py",
        "catcher.py",
        "cli.py",
        "manifest.py",
        "supervisor.py",
    }
    | {"web2py/plugin", "web2py/pack.py", "templates/admin/refused.html"}
)
# A web2py site often has no pip: what compose.py needs besides the standard library and pydal goes along.
_CARRIED = {"email-validator": "email_validator", "idna": "idna"}


def write(out: Path) -> None:
    """Write the pack.

    Args:
        out: the file; its name must be NAME, or web2py does not take it.

    Raises:
        ValueError: it has another name, or a package that goes along is not installed.
        OSError: it cannot be written.
    """
    if out.name != NAME:
        raise ValueError(f"web2py takes a plugin only from a file named {NAME}")
    files = dict(_files())
    with tarfile.open(out, "w:gz") as pack:
        for name in sorted(files):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(files[name]), 0o644
            pack.addfile(about, io.BytesIO(files[name]))


def _files() -> Iterator[tuple[str, bytes]]:
    """The files of the pack: their names in an application, and what is in them."""
    texts = [path for folder in _TEMPLATES for path in folder.rglob("*.*")]
    for path in [*PACKAGE.rglob("*.py"), *texts, *_TRANSLATIONS.rglob("*.json")]:
        name = path.relative_to(PACKAGE).as_posix()
        if not any(name == left_out or name.startswith(f"{left_out}/") for left_out in _LEFT_OUT):
            yield f"{MODULE}/{name}", path.read_bytes()
    plugin = PACKAGE / "web2py" / "plugin"
    for path in [*plugin.rglob("*.py"), *plugin.rglob("*.html")]:
        yield path.relative_to(plugin).as_posix(), path.read_bytes()
    for name in ("admin.css", "refresh.js"):
        yield f"static/plugin_mailqueue/{name}", (PACKAGE / "static" / name).read_bytes()
    for distribution, package in _CARRIED.items():
        yield from _installed(distribution, package)
    yield f"{MODULE}/LICENSE", _licence("mailqueue")


def _installed(distribution: str, package: str) -> Iterator[tuple[str, bytes]]:
    """The modules of an installed distribution, and its licence."""
    for file in _distributed(distribution):
        if file.parts[0] == package and file.suffix == ".py":
            yield f"{MODULE}/carried/{file.as_posix()}", file.read_binary()
    yield f"{MODULE}/carried/{package}/LICENSE", _licence(distribution)


def _licence(distribution: str) -> bytes:
    """The text of its licence, or where it comes without one, what it says about itself."""
    files = {file.stem.upper(): file for file in _distributed(distribution) if file.parts[0] != distribution}
    file = files.get("LICENSE") or files.get("METADATA")
    if file is None:
        raise ValueError(f"{distribution} is installed without its licence, which goes into the pack")
    return file.read_binary()


def _distributed(distribution: str) -> list[metadata.PackagePath]:
    try:
        return metadata.files(distribution) or []
    except metadata.PackageNotFoundError as error:
        raise ValueError(f"{distribution} is not installed; it goes into the pack") from error
