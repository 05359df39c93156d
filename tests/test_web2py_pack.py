"""The plugin as one file: what is in it, that web2py installs it, and pip instead of it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import email_validator
import idna
import mailqueue
from click.testing import CliRunner
from mailqueue.cli import main
from mailqueue.web2py import pack
from support.web2py_site import Web2pySite, register


def names(packed: Path) -> set[str]:
    with tarfile.open(packed) as opened:
        return set(opened.getnames())


def test_the_command_makes_a_pack_without_py4web(tmp_path: Path) -> None:
    out = tmp_path / pack.NAME
    done = CliRunner().invoke(main, ["web2py-pack", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert str(out) in done.output
    found = names(out)
    assert {"controllers/plugin_mailqueue.py", "views/plugin_mailqueue/page.html"} <= found
    assert {"modules/plugin_mailqueue/__init__.py", "modules/plugin_mailqueue/web2py/mailer.py"} <= found
    assert "modules/plugin_mailqueue/templates/mail/verify_email.html" in found
    assert "modules/plugin_mailqueue/translations/de.json" in found
    assert "modules/plugin_mailqueue/translations/console/de.json" in found
    assert "modules/plugin_mailqueue/templates/admin/replies.html" in found
    assert "modules/plugin_mailqueue/templates/admin/refused.html" not in found  # only py4web has it
    assert {"static/plugin_mailqueue/admin.css", "static/plugin_mailqueue/refresh.js"} <= found
    licences = ("LICENSE", "carried/email_validator/LICENSE", "carried/idna/LICENSE")
    assert {f"modules/plugin_mailqueue/{name}" for name in licences} <= found
    with tarfile.open(out) as opened:
        files = {member.name: opened.extractfile(member) for member in opened.getmembers()}
        texts = {name: file.read().decode() for name, file in files.items() if file}
    mentions = {name for name, text in texts.items() if "from py4web" in text or "import py4web" in text}
    assert mentions == {"modules/plugin_mailqueue/__init__.py"}  # where it is asked for


def test_a_file_of_another_name_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["web2py-pack", "--out", str(tmp_path / "plugin.w2p")])
    assert done.exit_code == 1
    assert pack.NAME in done.output
    assert not (tmp_path / "plugin.w2p").exists()


def test_two_packs_of_the_same_sources_hold_the_same(tmp_path: Path) -> None:
    packs = [tmp_path / folder / pack.NAME for folder in ("one", "other")]
    for packed in packs:
        packed.parent.mkdir()
        pack.write(packed)
    assert names(packs[0]) == names(packs[1])


def test_what_web2py_has_installed_it_can_pack_again(tmp_path: Path) -> None:
    site = Web2pySite(tmp_path)
    again = tmp_path / "again" / pack.NAME
    again.parent.mkdir()
    site.run("pack", str(again))
    shipped = tmp_path / "shipped" / pack.NAME
    shipped.parent.mkdir()
    pack.write(shipped)
    with tarfile.open(again) as opened:
        files = {member.name for member in opened.getmembers() if member.isfile()}
    assert {name for name in files if ".pyc" not in name} == names(shipped)


def test_web2pys_own_server_serves_it(tmp_path: Path) -> None:
    with Web2pySite(tmp_path).served("rocket") as site:
        register(site.browser(), "ann@example.test")
        assert len(site.mails("ann@example.test")) == 1
        assert site.tickets == []


def test_it_can_be_installed_by_pip_instead(tmp_path: Path) -> None:
    site = Web2pySite(tmp_path, plugin=False)
    model = site.app / "models" / "db.py"
    model.write_text(model.read_text().replace("from plugin_mailqueue import", "from mailqueue import"))
    alone = tmp_path / "alone"  # beside web2py, and nothing else of this environment
    alone.mkdir()
    for package in (mailqueue, email_validator, idna):
        source = Path(str(package.__file__)).parent
        (alone / source.name).symlink_to(source)
    with site.served(PYTHONPATH=str(alone)):
        register(site.browser(), "ann@example.test")
        assert len(site.mails("ann@example.test")) == 1
        assert site.tickets == []
