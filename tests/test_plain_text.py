"""The text part that is made of HTML."""

from __future__ import annotations

import pytest
from mailqueue.plain_text import plain_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("<p> </p>", ""),
        ("plain", "plain\n"),
        ("<p>one\n  two</p><p>three</p>", "one two\n\nthree\n"),
        ("<h1>Title</h1><p>a<br>b</p>", "Title\n\na\nb\n"),
        ("<p>a <b>b</b>, <i>c</i>.</p>", "a b, c.\n"),
        ("a&amp;b &lt;script&gt; 1 &uuml;", "a&b <script> 1 ü\n"),
        ("10&nbsp;Euro", "10\xa0Euro\n"),
        (
            "<p>See <a href='https://a.test/x?a=1&amp;b=2'>the list</a>.</p>",
            "See the list: https://a.test/x?a=1&b=2.\n",
        ),
        ("<a href='https://a.test/'>https://a.test/</a>", "https://a.test/\n"),
        ("<a href='mailto:a@b.test'>a@b.test</a>", "a@b.test\n"),
        ("<a href='#top'>up</a> <a>here</a>", "up here\n"),
        ("<a href='https://a.test/'><img alt='Home' src='x'></a>", "Home: https://a.test/\n"),
        ("<a href='https://a.test/'></a>", "https://a.test/\n"),
        ("<a class='big button' href='https://a.test/'> Go </a>", "Go:\nhttps://a.test/\n"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>d", "- a\n- b\n  - c\n\nd\n"),
        ("<ol><li>a</li><li><p>b</p></li></ol>", "1. a\n2. b\n"),
        ("<p>a</p><hr><p>b</p>", "a\n\n--------------------\n\nb\n"),
        ("<p>He said:</p><blockquote>a<br>b</blockquote>", "He said:\n\n> a\n> b\n"),
        ("<pre>a\n  b</pre>", "a\n  b\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><th>c</th></tr></table>", "a b\nc\n"),
        ("<head><title>t</title><style>p{}</style></head><body>a<script>s</script></body>", "a\n"),
        ("<div style='max-height:0; DISPLAY : none'>x<br><p>y</p></div>z", "z\n"),
        ("<p class='small html-only'>x <a href='https://a.test'>y</a></p>z", "z\n"),
        ("<div hidden>x</div><img hidden src='x'>z", "z\n"),
        ("<!-- x --><!--[if mso]><p>x</p><![endif]-->z", "z\n"),
        ("</p></a></ul></blockquote></pre></div>z<p>y", "z\n\ny\n"),
        ("a <unknown>b</unknown>", "a b\n"),
    ],
)
def test_html_as_people_read_it(html: str, text: str) -> None:
    assert plain_text(html) == text
