"""The lines of an SMTP dialogue, over a socket whose other end the test holds."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from mailqueue.rounds import Rounds
from mailqueue.transports.smtp_wire import LONGEST_LINE, MOST_LINES, Reply, Wire

SOON = 5.0
LONG = 60.0


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire("127.0.0.1", listener.getsockname()[1], timeout=SOON)
        server, _address = listener.accept()
        with server:
            yield wire, server
        wire.close()


@pytest.mark.parametrize(
    ("sent", "code", "lines"),
    [
        (b"250 2.0.0 ok\r\n", 250, ("2.0.0 ok",)),
        (b"250\r\n", 250, ("",)),
        (b"250 ok\n", 250, ("ok",)),  # a bare LF, which some servers write
        (b"250-one\r\n250-two\r\n250 three\r\n", 250, ("one", "two", "three")),
        (b"550-one\r\n554 two\r\n", 554, ("one", "two")),  # the last line decides
        (b"250-yes\r\n550 no\r\n", 0, ("yes", "550 no")),  # unless they contradict each other
        (b"550-no\r\n250 yes\r\n", 0, ("no", "250 yes")),
        (b"250 gr\xc3\xbc\xc3\x9fe\r\n", 250, ("gr\u00fc\u00dfe",)),
        (b"550 \xff\xfe\r\n", 550, ("\ufffd\ufffd",)),
        (b"hello\r\n", 0, ("hello",)),
        (b"\r\n", 0, ("",)),
        (b"199 too low\r\n", 0, ("199 too low",)),
        (b"600 too high\r\n", 0, ("600 too high",)),
        (b"250-one\r\nnonsense\r\n", 0, ("one", "nonsense")),
        (b"\xd9\xa2\xd9\xa5\xd9\xa0 ok\r\n", 0, ("\u0662\u0665\u0660 ok",)),  # digits, but not SMTP's
    ],
)
def test_a_reply_is_read_whatever_it_looks_like(ends, sent, code, lines):
    wire, server = ends
    server.sendall(sent)
    assert wire.read_reply(SOON) == Reply(code, lines)


def test_an_over_long_reply_ends_at_the_limit(ends):
    wire, server = ends
    threading.Thread(target=server.sendall, args=(b"x" * (LONGEST_LINE + 70000),)).start()
    reply = wire.read_reply(SOON)
    assert (reply.code, len(reply.text)) == (0, 500)


def test_a_reply_of_endless_lines_is_no_reply(ends):
    wire, server = ends
    server.sendall(b"250-more\r\n" * (MOST_LINES + 1))
    assert wire.read_reply(SOON).code == 0


def test_what_comes_behind_a_reply_is_kept_apart(ends):
    wire, server = ends
    server.sendall(b"250 one\r\n251 two\r\n")
    assert wire.read_reply(SOON).code == 250
    assert wire.has_unread()
    assert wire.read_reply(SOON).code == 251
    assert not wire.has_unread()


def test_a_reply_may_arrive_in_pieces(ends):
    wire, server = ends
    server.sendall(b"25")
    assert wire.has_unread()
    server.sendall(b"0 ok\r")
    threading.Timer(0.05, server.sendall, (b"\n",)).start()
    assert wire.read_reply(SOON) == Reply(250, ("ok",))


def test_a_command_is_one_line_in_utf_8(ends):
    wire, server = ends
    threading.Timer(0.05, server.sendall, (b"250 ok\r\n",)).start()
    assert wire.command("RCPT TO:<gr\u00fc\u00dfe@x.test>", SOON).positive
    assert server.recv(100) == b"RCPT TO:<gr\xc3\xbc\xc3\x9fe@x.test>\r\n"


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\t", "\x1b", "\x7f"])
def test_a_control_character_never_reaches_the_wire(ends, character):
    wire, server = ends
    with pytest.raises(ValueError, match="control character"):
        wire.command(f"RCPT TO:<a{character}b@x.test>", SOON)
    wire.close()
    assert server.recv(100) == b""


def test_half_a_character_never_reaches_the_wire(ends):
    wire, server = ends
    with pytest.raises(UnicodeEncodeError):
        wire.command("RCPT TO:<\ud800@x.test>", SOON)
    wire.close()
    assert server.recv(100) == b""


def test_a_command_is_not_sent_when_the_server_spoke_before_it_was_asked(ends):
    wire, server = ends
    server.sendall(b"250 for the command to come\r\n")
    with pytest.raises(ConnectionError, match="before it was asked: 250 for the command"):
        wire.command("MAIL FROM:<a@x.test>", SOON)
    wire.close()
    assert server.recv(100) == b""


def test_a_silent_server_has_nothing_unread(ends):
    wire, _server = ends
    assert not wire.has_unread()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_server_that_left_is_seen_as_something_unread(ends, reset):
    wire, server = ends
    if reset:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    assert wire.has_unread()


def test_a_closed_connection_is_no_empty_reply(ends):
    wire, server = ends
    server.sendall(b"250 not fini")
    server.close()
    with pytest.raises(ConnectionError):
        wire.read_reply(SOON)


def test_a_silent_server_is_waited_for_only_so_long(ends):
    wire, _server = ends
    with pytest.raises(TimeoutError):
        wire.read_reply(0.05)


def test_no_time_left_means_no_waiting_at_all(ends):
    wire, server = ends
    server.sendall(b"250 too late\r\n")
    with pytest.raises(TimeoutError):
        wire.read_reply(0)


def test_its_own_address_is_written_as_a_literal(ends):
    wire, _server = ends
    assert wire.local_address == "[127.0.0.1]"


def test_its_own_ipv6_address_is_written_as_a_literal():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        wire = Wire("::1", listener.getsockname()[1], timeout=SOON)
        assert wire.local_address == "[IPv6:::1]"
        wire.close()


def test_closing_twice_is_harmless(ends):
    wire, _server = ends
    wire.close()
    wire.close()


def test_what_the_server_does_not_take_at_once_goes_out_in_steps(ends):
    wire, server = ends
    whole = bytes(range(256)) * 200_000  # more than any buffer on the way holds
    sent = wire.send_some(whole)
    assert 0 < sent < len(whole)
    read = bytearray()

    def drain() -> None:
        while len(read) < len(whole):
            read.extend(server.recv(1 << 20))

    reader = threading.Thread(target=drain)
    reader.start()
    Rounds().run(wire.rest_within(memoryview(whole)[sent:], SOON))
    reader.join(SOON)
    assert read == whole


def test_a_server_that_takes_nothing_more_is_waited_for_only_so_long(ends):
    wire, _server = ends
    whole = memoryview(bytes(50_000_000))
    with pytest.raises(TimeoutError):
        Rounds().run(wire.rest_within(whole[wire.send_some(whole) :], 0.1))


def test_lines_are_waited_for_in_steps_and_stay_unread(ends):
    wire, server = ends
    steps = wire.lines_within(2, SOON)
    assert next(steps).until > time.monotonic()
    server.sendall(b"250 one\r\n")
    assert Rounds().run(wire.lines_within(1, SOON)) == b"250 one\r\n"
    server.sendall(b"250 two\r\n")
    assert Rounds().run(steps) == b"250 one\r\n250 two\r\n"
    assert wire.read_reply(SOON) == Reply(250, ("one",))


def test_lines_that_do_not_come_are_waited_for_only_so_long(ends):
    wire, server = ends
    server.sendall(b"250 one\r\n250 t")
    assert Rounds().run(wire.lines_within(2, 0.05)) == b"250 one\r\n250 t"
    server.close()
    assert Rounds().run(wire.lines_within(2, LONG)) == b"250 one\r\n250 t"


def test_a_server_that_never_stops_talking_is_listened_to_only_so_long(ends):
    wire, server = ends
    enough = threading.Event()

    def talk() -> None:
        while not enough.wait(0.001):
            server.sendall(b"x")

    talking = threading.Thread(target=talk)
    talking.start()
    said = Rounds().run(wire.lines_within(2, 0.05))
    assert 0 < len(said) < LONGEST_LINE, "the time was over long before that"
    enough.set()
    talking.join(SOON)


def test_no_more_is_kept_of_lines_without_an_end_than_lines_may_have(ends):
    wire, server = ends
    whole = b"x" * 40 * LONGEST_LINE
    talking = threading.Thread(target=server.sendall, args=(whole,))
    talking.start()
    said = Rounds().run(wire.lines_within(2, LONG))
    assert 2 * LONGEST_LINE <= len(said) <= 2 * LONGEST_LINE + 65536
    rest = len(whole) - len(said)
    while rest:
        rest -= len(wire._receive(time.monotonic() + SOON))
    talking.join(SOON)


def test_lines_of_a_connection_that_breaks_are_those_that_came(ends):
    wire, server = ends
    steps = wire.lines_within(2, LONG)
    next(steps)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    assert Rounds().run(steps) == b""
    with pytest.raises(ConnectionError):
        wire.read_reply(SOON)
