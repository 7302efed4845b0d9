"""Documents as other programs, editors and attackers write them: valid ones, mutated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

Documents = st.SearchStrategy[bytes]

# Texts of JSON values that a reader may meet where it expects another.
VALUES = (
    "null", "true", "false", "0", "-0", "-1", "1", "1.5", "-1e-9", "5e-324", "1e308", "1e999",
    "-1e999", "NaN", "Infinity", "-Infinity", str(2**31), str(2**63), str(2**64), "9" * 30,
    "9" * 400, "9" * 4301, "-" + "9" * 4301, "1" + "0" * 308 + ".0",
    '""', '"²"', '"٣"', '"١٢"', '"1_000"', '" 7 "', '"+7"', '"-7"', '"0x10"', '"1e5"', '"1e999"',
    '"nan"', '"inf"', '"99999999999999999999"', '"' + "9" * 4301 + '"', '"\\u0000"', '"\\ud800"',
    '"\\ud83d\\ude00"', '"a\\nb"', '"\\u001b[31m"', '"[bold]"', '"\\u202e"', '"x,y"', '"-"', '","',
    '"' + "f" * 3000 + '"', '"' + "x" * 20_000 + '"', '"../../etc/passwd"', '"/dev/zero"',
    '"-oProxyCommand=x"', '"$(id)"', '"2024-13-45"', '"2024-01-01T00:00:00Z"', '"0001-01-01"',
    '"9999-12-31T23:59:59.999999+23:59"',
    "[]", "{}", "[null]", "[[]]", "[{}]", "[1]", '["a"]', '{"a": null}', '{"": ""}', '{"\\ud800": 1}',
    "[" * 300 + "]" * 300, "[" * 90_000 + "]" * 90_000, "[" * 5000, '{"a":' * 5000 + "1" + "}" * 5000,
    "[" + "1," * 3000 + "1]", "[" + '"a",' * 3000 + '"a"]',
    '"a" "b"', "", ",", "]", "0x1F", "07", "1.", ".5", "+1", "'a'", "tru", "/* */ 1", '"\t"',
)  # fmt: skip

# Words of a line of /proc, of a table, of a list of CPUs.
WORDS = (
    "", "0", "-1", "1", "+1", "00", "²", "٣", "1_0", "0x10", "0b1", "1e5", "1e999", "nan", "inf", "-inf",
    "NaN", "4294967296", "18446744073709551616", "9" * 30, "9" * 400, "9" * 4301, "f" * 3000, "1.5",
    ".", "-", "--", "0-", "-0", "5-1", "0-3-5", "0-99999999", "0-999999999999", "0-3,", ",", ",,",
    "0,0", "(null)", "ffffffff,ffffffff", ",f", "f,", "f" * 9 + ",1", "cpu", "cpu²", "cpu-1", "cpu9",
    "cpu99999999999999999999", "CPU", "CPUx", "CPU1", "CPU-1", "NET_RX:", ":", "::", "all", "%idle",
    "a" * 5000, "\x00", "\x1b[31m", "\x85", "\u2028", "\udcff", "\ud800", "é", "\u202e", "😀", "%", "$x",
    "\"", "'", "{", "[", "(", ")", ") Z (", "R", "1;2", "a b", "\t", "#", "/", "..", "*", "?", "[", "=",
    "on", "off", "on [fixed]", "pod00000000-0000-0000-0000-000000000000", "00000000", "7FFFFFFF",
)  # fmt: skip

# Pieces of YAML that its loader, and who uses what it loaded, must stand.
YAML = (
    "&a [*a]", "&a {x: *a}", "*nope", "!!python/object/apply:os.getcwd []", "!!python/name:os.system",
    "!!python/tuple [1]", "!own 1", '!!int ""', "!!int x", '!!float ""', "!!float x", "!!bool x",
    "!!bool ''", "!!timestamp x", "!!timestamp ''", "!!binary '='", "!!binary é", "!!binary aGk=",
    "!!null x", "!!str [1]", "!!seq {a: 1}", "!!map [1]", "!!set [1]", "!!set {a, b}", "!!omap x",
    "!!omap [1]", "!!omap [{a: 1, b: 2}]", "!!pairs [1]", "!!pairs [{a: 1}]", "{<<: 5}", "{<<: [1]}",
    "{<<: {a: 1}}", "{<<: [{a: 1}, {b: 2}]}", "{<<: &a [{<<: *a}]}", "{<<: }", "{=: 1}", "=", "<<",
    "{[a]: b}", "{{}: b}", "{? [a, b] : c}", "{null: 1}", "{1: 1, 1: 2}", "{a: 1, a: 2}", "{2024-01-01: 1}",
    "{true: 1}", "{.nan: 1}", "2024-01-01", "2024-13-45", "2024-02-30", "2024-01-01T99:99:99Z",
    "2024-01-01 00:00:00 +99:99", "0001-01-01 00:00:00 +23:59", "0b", "0b_", "0x", "0x_", "-0x_", "0o7",
    "08", "1_", "_", "0_", "1__0", "1:60", "190:20:30", "1:2:3:4:5:6:7:8:9.5", "9" * 4301,
    "0x" + "f" * 5000, ":".join(["59"] * 900), ".inf", "-.inf", ".nan", "1e999", "1.e+999", "yes", "no",
    "on", "off", "~", "", "|", ">", "|9", "> \n x", "'", '"', '"\\x"', '"\\ud800"', '"\\U00110000"',
    '"\\0"', "\t", "- -", "- ", "?", ": ", ",", "[", "{", "}", "]", "[" * 400, "{a: " * 400, "- " * 400,
    "[" + "[" * 150 + "]" * 151, "%YAML 9.9", "---", "...", "--- a\n--- b", "# x", "@", "`", "!", "!!", "&",
    "*", "!<x> 1", "!<tag:yaml.org,2002:int> x", "a: b: c", "\ufeffa", "\x85", "\u2028", "secure: x",
    "{secure: x}", "²", "٣", "1,00000000", "x" * 5000,
)  # fmt: skip


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a document, as its container and its key there."""
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield document, key
        yield from places(value)


@st.composite
def json_like(draw: st.DrawFn, valid: Any) -> bytes:
    """A valid JSON document with up to three of its values changed, and its bytes once."""
    document = json.loads(json.dumps({"": valid}))
    raw: dict[str, str] = {}

    def mark(text: str) -> str:
        name = f"@raw{len(raw)}@"
        raw[f'"{name}"'] = text
        return name

    for _ in range(draw(st.integers(0, 3))):
        where, key = draw(st.sampled_from(list(places(document))))
        match draw(st.integers(0, 5)):
            case 0 | 1 | 2:
                where[key] = mark(draw(st.sampled_from(VALUES)))
            case 3:
                del where[key]
                if not document:
                    break
            case 4 if isinstance(where, dict):
                value = draw(st.sampled_from(VALUES))
                where[key] = mark(f"{json.dumps(where[key])}, {json.dumps(key)}: {value}")
            case 4:
                where.insert(key, where[key])
            case 5 if isinstance(where, dict):
                name = draw(st.sampled_from(["extra", "", "\0", "ключ", "k" * 5000, "__class__"]))
                where[name] = where.pop(key) if draw(st.booleans()) else where[key]
            case _:
                where[key] = [where[key]]
    text = json.dumps(document.get("", None))
    for name, value in reversed(raw.items()):
        text = text.replace(name, value)
    return draw(damaged(text.encode("utf-8", "surrogatepass")))


@st.composite
def text_like(draw: st.DrawFn, valid: Sequence[str], words: Sequence[str] = WORDS) -> bytes:
    """One of several valid texts with some words and lines changed, and its bytes once."""
    lines = draw(st.sampled_from(list(valid))).splitlines(keepends=True) or [""]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 7)):
            case 0 | 1 | 2 | 3:
                lines[at] = _with_word(draw, lines[at], words)
            case 4 if len(lines) > 1:
                del lines[at]
            case 5:
                lines.insert(at, lines[at])
            case 6:
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = draw(st.sampled_from(["\n", " \n", "\t\n", lines[at].rstrip("\n")]))
    return draw(damaged("".join(lines).encode("utf-8", "surrogatepass")))


def _with_word(draw: st.DrawFn, line: str, words: Sequence[str]) -> str:
    """The line with a word replaced, removed or added, or a character of it cut out."""
    parts = line.rstrip("\n").split(" ")
    at = draw(st.integers(0, len(parts) - 1))
    match draw(st.integers(0, 4)):
        case 0 | 1:
            parts[at] = draw(st.sampled_from(list(words)))
        case 2:
            head, colon, _ = parts[at].partition(":")
            parts[at] = head + colon + draw(st.sampled_from(list(words)))
        case 3:
            parts.insert(at, draw(st.sampled_from(list(words))))
        case _:
            del parts[at]
    return " ".join(parts) + "\n"


def yaml_like(text: str, document: Any) -> Documents:
    """YAML: a text of it with words changed, or the same document as mutated JSON."""
    return st.one_of(text_like([text], YAML), json_like(document))


def _cut(data: bytes, at: int, _: bytes) -> bytes:
    return data[: at % (len(data) + 1)]


def _insert(data: bytes, at: int, piece: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + piece + data[at:]


DAMAGE: tuple[Callable[[bytes, int, bytes], bytes], ...] = (
    _cut,
    _insert,
    _insert,
    lambda data, at, _: data[at % (len(data) + 1) :],
    lambda data, _, __: b"\xef\xbb\xbf" + data,
    lambda data, _, __: data.replace(b"\n", b"\r\n"),
    lambda data, _, __: data.replace(b"\n", b"\r"),
    lambda data, _, __: data + data,
    lambda data, _, __: data.decode("utf-8", "replace").encode("utf-16"),
    lambda data, _, __: data.decode("utf-8", "replace").encode("utf-32-be"),
    lambda data, _, piece: piece + data,
    lambda data, _, piece: data + piece,
    lambda data, _, __: data.replace(b" ", b""),
    lambda data, _, __: data.replace(b"0", "٠".encode()),
)
PIECES = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x1b", b"\x0c",
    b"\x1c", b"\x85", b"\n", b"\r", b"\xe2\x80\xa8", b"{", b"}", b"[", b"]", b",", b":", b"\"", b"\\",
    b"-", b"9", b"e999", b"#", b"&", b"*", b"!", b"%", b"\t", b"iperf3: warning: x\n", b"\x00" * 4096,
    b"9" * 5000, b"[" * 3000, b" " * 5000, b"\n" * 3000, b"a" * 70_000,
)  # fmt: skip


def damaged(data: bytes) -> Documents:
    """The bytes as they are, or damaged in one way."""
    return st.one_of(
        st.just(data),
        st.builds(
            lambda damage, at, piece: damage(data, at, piece),
            st.sampled_from(DAMAGE),
            st.integers(0, max(1, len(data))),
            st.sampled_from(PIECES),
        ),
    )


RAW: Documents = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\n", b" ", b"\x00", *PIECES]),
    st.sampled_from(VALUES).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from([*WORDS, "\n", " "]), max_size=12).map(
        lambda words: " ".join(words).encode("utf-8", "surrogatepass")
    ),
)
