"""What the benchmark needs on this machine: environments, the SMTP sink, programs of databases.

Needs nothing but Python, since it makes the environments that everything else runs in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEERS = HERE / "requirements-peers.txt"


class Missing(Exception):
    """Something is not on this machine and cannot be brought there; the text says what to do."""


def prepare(folder: Path) -> None:
    """Make the environments, if they are not there or not up to date.

    Raises:
        Missing: a package cannot be installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # PostgreSQL and the sink run as users of their own
    packages = (ROOT / "setup.py").read_text(encoding="utf-8")
    ours = ["-e", str(ROOT), "psycopg2-binary", "pymysql", "requests"]
    _environment(folder / "ours", ours, stamp=f"{ROOT}\n{packages}")
    _environment(folder / "peers", ["-r", str(PEERS)], stamp=PEERS.read_text(encoding="utf-8"))


def python(folder: Path, environment: str) -> str:
    """The interpreter of an environment, "ours" or "peers"."""
    return str(folder / environment / "bin" / "python")


def _environment(folder: Path, requirements: list[str], stamp: str) -> None:
    done = folder / "installed.txt"
    if done.exists() and done.read_text(encoding="utf-8") == stamp:
        return
    print(f"installing into {folder}", file=sys.stderr, flush=True)
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *requirements],
    )
    for step in steps:
        ended = subprocess.run(step, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise Missing(f"{' '.join(step)} failed:\n{ended.stdout}{ended.stderr}")
    done.write_text(stamp, encoding="utf-8")


def sink_command(folder: Path) -> tuple[str, dict[str, str]]:
    """Postfix's smtp-sink: the program, and environment variables that it needs.

    It is only unpacked, where it is not installed: no mail server is set up on this machine.

    Raises:
        Missing: it is not here, and apt cannot bring it.
    """
    installed = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if installed:
        return installed, {}
    unpacked = folder / "postfix"
    program = unpacked / "usr" / "sbin" / "smtp-sink"
    if not program.exists():
        _unpack_postfix(folder, unpacked)
    return str(program), {"LD_LIBRARY_PATH": str(unpacked / "usr" / "lib" / "postfix")}


def _unpack_postfix(folder: Path, target: Path) -> None:
    remedy = "smtp-sink is not installed. It is in Debian's and Ubuntu's package postfix."
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Missing(remedy)
    fetched = subprocess.run(
        ["apt-get", "download", "-q", "postfix"], cwd=folder, capture_output=True, text=True, check=False
    )
    archives = sorted(folder.glob("postfix_*.deb"))
    if not archives:
        raise Missing(f"{remedy} It could not be downloaded: {fetched.stderr.strip()}")
    subprocess.run(["dpkg", "-x", str(archives[-1]), str(target)], check=True)


def program(name: str, package: str, *folders: str) -> str:
    """The path of a program.

    Args:
        folders: where it may be though it is not on the PATH; patterns, the last match is taken.

    Raises:
        Missing: it is not there.
    """
    for folder in folders:
        found = sorted(Path("/").glob(f"{folder.lstrip('/')}/{name}"), key=_version)
        if found:
            return str(found[-1])
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not path:
        raise Missing(f"{name} is not installed. It is in Debian's and Ubuntu's package {package}.")
    return path


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parts if part.isdigit())
