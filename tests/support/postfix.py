"""A Postfix of the tests' own on 127.0.0.1: TLS, login, and mailboxes that the tests read.

    with Postfix(certificates.server) as relay:
        relay.set_password("site", "secret")
        ...                                      # talk to 127.0.0.1, relay.port
        relay.wait_for("ann", 1)
        relay.restart(message_size_limit="1000")

Configuration, queue, mailboxes and passwords lie in a folder that is gone afterwards; the machine's own
Postfix, if one runs, is not touched. Needs root, since Postfix does.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

from .certificates import Certificate
from .smtp_server import free_port

HOST = "relay.test"
BOXES_DOMAIN = "box.test"
BOXES = ("ann", "bob", "cid", "dan", "eva", "fay", "gus", "hal")
_DAEMONS = "/usr/lib/postfix/sbin"
_NOBODY = 65534

_SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
_PASSWORDS = """
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {file}
mech_list: PLAIN LOGIN
"""


def missing() -> str | None:
    """Why there can be no Postfix here; None: there can."""
    absent = [name for name in ("postfix", "saslpasswd2") if not shutil.which(name, path=_path())]
    if absent:
        return f"{' and '.join(absent)} not installed (Debian's packages postfix and sasl2-bin)"
    return None if os.geteuid() == 0 else "Postfix can be started by root only"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin"


class Postfix:
    """The server, as a context manager.

    Args:
        certificate: shown after STARTTLS, without which it takes neither login nor mail.
    """

    def __init__(self, certificate: Certificate):
        self._certificate = certificate
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postfix:
        # Not pytest's own folder, into which Postfix's users cannot look.
        self._folder = Path(tempfile.mkdtemp(prefix="mailqueue-postfix-"))
        self._folder.chmod(0o755)
        for name in ("etc/sasl", "queue", "data", "mail"):
            (self._folder / name).mkdir(parents=True)
        shutil.chown(self._folder / "data", "postfix")
        self._write("etc/master.cf", _SERVICES.format(port=self.port))
        self._write("etc/sasl/smtpd.conf", _PASSWORDS.format(file=self._passwords))
        self._write("etc/boxes", "".join(f"{name}@{BOXES_DOMAIN} {name}/\n" for name in BOXES))
        self._configure({})
        self._run("postfix", "-c", str(self._folder / "etc"), "check")
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- settings ----------------------------------------------------------------------------

    @property
    def _passwords(self) -> Path:
        return self._folder / "etc/sasl/users.db"

    def set_password(self, user: str, password: str) -> None:
        """Let this user log in, as user@HOST, with this password and no other."""
        self._run("saslpasswd2", "-p", "-c", "-f", str(self._passwords), "-u", HOST, user, said=password)
        shutil.chown(self._passwords, group="postfix")
        self._passwords.chmod(0o640)

    def fresh(self, certificate: Certificate | None = None, **settings: str) -> None:
        """As restart(), with another certificate too, and with empty mailboxes."""
        self.stop()
        shutil.rmtree(self._folder / "mail")
        (self._folder / "mail").mkdir()
        shutil.chown(self._folder / "mail", _NOBODY)
        self._configure(settings, certificate)
        self.start()

    def restart(self, **settings: str) -> None:
        """Stop, and start with these settings of main.cf besides the usual ones."""
        self.stop()
        self._configure(settings)
        self.start()

    def _configure(self, settings: dict[str, str], certificate: Certificate | None = None) -> None:
        shown = certificate or self._certificate
        usual = {
            "compatibility_level": "3.6",
            "queue_directory": f"{self._folder}/queue",
            "data_directory": f"{self._folder}/data",
            "daemon_directory": _DAEMONS,
            "maillog_file": f"{self._folder}/log",
            "maillog_file_prefixes": str(self._folder.parent),
            "myhostname": HOST,
            "mydestination": "",
            "mynetworks": "",
            "inet_protocols": "ipv4",
            "notify_classes": "",
            "alias_maps": "",
            "alias_database": "",
            "virtual_mailbox_domains": BOXES_DOMAIN,
            "virtual_mailbox_base": f"{self._folder}/mail",
            "virtual_mailbox_maps": f"texthash:{self._folder}/etc/boxes",
            "virtual_minimum_uid": "1",
            "virtual_uid_maps": f"static:{_NOBODY}",
            "virtual_gid_maps": f"static:{_NOBODY}",
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_chain_files": f"{shown.key_file}, {shown.cert_file}",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_client_event_limit_exceptions": "",
        }
        lines = [f"{name} = {value}\n" for name, value in {**usual, **settings}.items()]
        self._write("etc/main.cf", "".join(lines))

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.write_text(text.lstrip(), encoding="utf-8")
        os.utime(path, (0, 0))  # Postfix waits for seconds before it believes a file that was just written

    def _run(self, *command: str, said: str = "") -> None:
        done = subprocess.run(
            command,
            input=said,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": _path()},
        )
        assert done.returncode == 0, done

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        command = [f"{_DAEMONS}/master", "-d", "-c", str(self._folder / "etc")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.wait_until(self._answers)

    def stop(self) -> None:
        """End it at once, connections and all; what it has accepted stays in its queue."""
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as client:
            return client.recv(4).startswith(b"220")
        return False

    # --- mail --------------------------------------------------------------------------------

    def mailbox(self, name: str) -> list[EmailMessage]:
        """What has been delivered to one of BOXES, in no order."""
        texts = [path.read_bytes() for path in self._delivered(name)]
        return [email.message_from_bytes(text, policy=email.policy.default) for text in texts]

    def count(self, name: str) -> int:
        """How many messages have been delivered to one of BOXES."""
        return len(self._delivered(name))

    def _delivered(self, name: str) -> list[Path]:
        return list((self._folder / "mail" / name / "new").glob("*"))

    def wait_for(self, name: str, count: int) -> list[EmailMessage]:
        """The messages in a mailbox, as soon as there are so many and the queue is empty."""
        self.wait_until(lambda: self.count(name) >= count and not self._queued())
        return self.mailbox(name)

    def _queued(self) -> int:
        """How many messages it has accepted and not delivered yet."""
        folders = (self._folder / "queue" / name for name in ("maildrop", "incoming", "active", "deferred"))
        return sum(_is_whole(path) for folder in folders for path in folder.rglob("*"))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as it holds; fail after some seconds, with what the log says."""
        pause = threading.Event()
        for _ in range(1000):
            if condition():
                return
            pause.wait(0.01)
        log = self._folder / "log"
        raise AssertionError(log.read_text(encoding="utf-8")[-3000:] if log.exists() else "no log")


def _is_whole(path: Path) -> bool:
    """Whether this is a message that Postfix has accepted; what it was stopped in is not executable."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # delivered meanwhile
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)
