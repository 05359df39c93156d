"""Previews: of every mail, of a site's own templates, and on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mailqueue.cli import main
from mailqueue.rendering import templates_of

NAMES, TAGS = templates_of(None).names(), templates_of(None).languages()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["templates", *(str(argument) for argument in arguments)])


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An app with a template of its own."""
    folder = tmp_path / "app" / "templates" / "mail"
    folder.mkdir(parents=True)
    (folder / "order.html").write_text("<title>Order [[=number]] for [[=name]]</title>", encoding="utf-8")
    (folder / "order.json").write_text('{"number": 4711}', encoding="utf-8")
    return tmp_path / "app"


def test_templates_and_languages_are_listed(app: Path) -> None:
    assert run("list").stdout.split() == [*NAMES, "Languages:", *TAGS]
    assert "order" in run("list", "--app", app).stdout.split()


@pytest.mark.parametrize(
    ("form", "begins"),
    [("html", "<!DOCTYPE html>"), ("text", "Guten Tag Ann Example,\n"), ("subject", "Ihr Anmeldecode\n")],
)
def test_a_mail_is_shown_in_a_language_and_a_form(form: str, begins: str, tmp_path: Path) -> None:
    shown = run("preview", "two_factor", "--language", "de-AT", "--format", form)
    assert shown.exit_code == 0
    assert shown.stdout.startswith(begins)
    out = tmp_path / "mail"
    assert run("preview", "two_factor", "--language", "de", "--format", form, "--out", out).stdout == ""
    assert out.read_text(encoding="utf-8") == shown.stdout


def test_all_mails_are_written_into_a_folder(tmp_path: Path) -> None:
    written = run("preview", "--out", tmp_path / "new" / "all")
    assert written.exit_code == 0, written.output
    found = {path.name for path in (tmp_path / "new" / "all").iterdir()}
    assert found == {f"{name}.{tag}.{end}" for name in NAMES for tag in TAGS for end in ("html", "txt")}
    assert "176 files written" in written.stdout
    text = (tmp_path / "new" / "all" / "alert.ja.txt").read_text(encoding="utf-8")
    assert text.startswith("Ann Example 様\n")


def test_a_template_of_ones_own_is_shown_with_the_variables_beside_it(app: Path) -> None:
    shown = run("preview", "order", "--app", app, "--format", "subject")
    assert shown.stdout == "Order 4711 for Ann Example\n"


def test_a_broken_template_is_told_and_the_shipped_one_is_shown(app: Path) -> None:
    (app / "templates" / "mail" / "alert.html").write_text("<title>[[=x]]</title>", encoding="utf-8")
    shown = run("preview", "alert", "--app", app, "--format", "subject")
    assert shown.exit_code == 0
    assert shown.stdout == "The mail of Example needs your attention\n"
    assert "'x' is not defined (alert.html, line 1). The shipped one is shown." in shown.stderr


@pytest.mark.parametrize("variables", ["{", "[1]", "5"])
def test_variables_that_cannot_be_read_are_a_plain_error(app: Path, variables: str) -> None:
    (app / "templates" / "mail" / "order.json").write_text(variables, encoding="utf-8")
    assert "order.json cannot be read as variables" in run("preview", "order", "--app", app).output


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["preview"], 2, "--out FOLDER"),
        (["preview", "nope"], 1, "'nope'"),
        (["preview", "alert", "--format", "pdf"], 2, "pdf"),
        (["preview", "alert", "--out", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (["preview", "--out", "/dev/null/x"], 1, "/dev/null"),
        (["list", "--app", "/nowhere"], 2, "/nowhere"),
    ],
)
def test_a_users_mistake_is_a_plain_error(arguments: list[str], code: int, told: str) -> None:
    answer = run(*arguments)
    assert answer.exit_code == code
    assert told in answer.output
    assert "Traceback" not in answer.output
