"""What runs in web2py's own environment: `python web2py_run.py VERB …` in the folder above applications."""

from __future__ import annotations

import os
import sys
import urllib.request

os.environ["web2py_path"] = os.getcwd()
sys.path[0] = os.getcwd()  # as web2py.py does

import pydal._compat

if not hasattr(pydal._compat, "FancyURLopener"):  # web2py 2.26 asks today's pydal for it
    pydal._compat.FancyURLopener = urllib.request.FancyURLopener


def install(pack: str) -> None:
    """Install a plugin as the admin application does."""
    from gluon.admin import plugin_install
    from gluon.globals import Request

    request = Request({})
    request.folder = os.path.join(os.getcwd(), "applications", "admin")
    with open(pack, "rb") as stream:
        if not plugin_install("app", stream, request, os.path.basename(pack)):
            sys.exit("web2py's plugin_install failed")


def pack(out: str) -> None:
    """Pack the plugin of the application as the admin application does."""
    from gluon.fileutils import w2p_pack_plugin

    w2p_pack_plugin(out, os.path.join(os.getcwd(), "applications", "app"), "mailqueue")


def wsgi(port: str) -> None:
    """Serve web2py's WSGI application by the standard library's server."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    from gluon.main import wsgibase

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    make_server("127.0.0.1", int(port), wsgibase, server_class=Server).serve_forever()


def rocket(port: str) -> None:
    """Serve by web2py's own server."""
    from gluon.main import HttpServer

    HttpServer(
        "127.0.0.1", int(port), "password", pid_filename="server.pid", log_filename="server.log"
    ).start()


def scheduler() -> None:
    """Work as `web2py.py -K app` does."""
    run_in_app("from gluon.globals import current; current._scheduler.loop()")


def run_in_app(program: str) -> None:
    """Run a program after the models, as `web2py.py -S app -M` does."""
    from gluon.shell import run

    run("app", True, True, None, False, program, False, True)


def run_file(path: str) -> None:
    """Run a script after the models, as `web2py.py -S app -M -R path` does."""
    from gluon.shell import run

    run("app", True, True, path)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
