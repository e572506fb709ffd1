"""Tests of YAML, JSON and XML parsing: content, refused texts, and positions of errors.

`tests/fuzz/test_untrusted.py` tests malicious files.
"""

from pathlib import Path

import pytest

from retinanet.parse import (
    MAX_YAML_DEPTH,
    ParseError,
    parse_duration,
    parse_json,
    parse_xml,
    parse_yaml,
    printable,
    shorten,
)


def test_yaml_content():
    assert parse_yaml("names: [cat, dog]\nnc: 2\nbase: &b {x: 1.5}\nagain: *b\n") == {
        "names": ["cat", "dog"],
        "nc": 2,
        "base": {"x": 1.5},
        "again": {"x": 1.5},
    }
    assert parse_yaml("") is None
    assert parse_yaml("# a comment") is None


def test_words_stay_as_written():
    words = ["yes", "no", "on", "off", "null", "~", "true", "010", "08", "12:30", "1e3", "1.50", "2020-01-01", "0x1F"]
    text = f"names: [{', '.join(words)}]\nmore: {{names: [yes]}}\n"
    assert parse_yaml(text, words=("names",)) == {"names": words, "more": {"names": [True]}}
    assert parse_yaml("names: {010: no, 1: &a off}\nnc: *a\n", words=("names",)) == {
        "names": {"010": "no", "1": "off"},
        "nc": "off",
    }
    assert parse_yaml("names: null", words=("names",)) == {"names": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("a: 1\nb: &b [*b]", "line 2: YAML with an alias that contains itself"),
        ("[" * (MAX_YAML_DEPTH + 2), f"more than {MAX_YAML_DEPTH} nested values"),
        ("when: 2020-99-99", "YAML with an invalid value"),
        ("lr: 1e-3\n\nlr: 1e-2", "line 3: 'lr' is set twice, first in line 1"),
        ("names: {0: cat, 1: dog, 0: cow}", "line 1: '0' is set twice, first in line 1"),
        ("a: &x {b: 1}\nc: [*x, {d: 1, 'd': 2}]", "line 2: 'd' is set twice"),
    ],
)
def test_invalid_yaml_is_refused(text: str, message: str):
    with pytest.raises(ParseError, match=message):
        parse_yaml(text)


def test_yaml_aliases_with_too_many_values_are_refused():
    """Seven levels of ten aliases: 10^7 values in a few lines."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    with pytest.raises(ParseError, match="stand for more than 1,000,000 values"):
        parse_yaml("\n".join(lines))


def test_json_content():
    assert parse_json(b'{"a": [1, 2.5, null, "\\u00e9"]}') == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "b": }', "line 2, column 7: not JSON"),
        (b'"\\ud800"', "not JSON"),
        (b"\xff", "not JSON"),
        (b"1" * 5000, "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_invalid_json_is_refused(data: bytes, message: str):
    with pytest.raises(ParseError, match=message):
        parse_json(data)


def test_xml_content_and_errors(tmp_path: Path):
    path = tmp_path / "a.xml"
    path.write_text("<annotation><object><name>cat</name></object></annotation>")
    assert parse_xml(path).findtext("object/name") == "cat"
    path.write_text("<a>\n<b></a>")
    with pytest.raises(ParseError, match="line 2, column 6: not XML"):
        parse_xml(path)
    path.write_text('<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>')
    with pytest.raises(ParseError, match="XML that cannot be read"):
        parse_xml(path)


def test_an_error_names_the_file_and_the_position():
    assert ParseError("not JSON", "line 3").at(Path("a.json")) == "a.json, line 3: not JSON"
    assert ParseError("not JSON").at(Path("a.json")) == "a.json: not JSON"
    assert str(ParseError("not JSON", "line 3")) == "line 3: not JSON"


def test_messages_are_short_and_printable():
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\nc"
    assert printable("0123456789", max_length=4) == "01 ... 89"
    assert shorten([1, 2]) == "[1, 2]"
    assert shorten(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, ...]"
    assert len(shorten("x" * 10_000)) <= 300


@pytest.mark.parametrize(
    ("declared", "codec"),
    [("GB2312", "gbk"), ("Big5", "big5"), ("Shift_JIS", "cp932"), ("EUC-KR", "euc_kr"), ("utf-8", "utf-16")],
)
def test_xml_in_encodings_that_expat_cannot_decode(declared: str, codec: str, tmp_path: Path):
    path = tmp_path / "a.xml"
    word = "한국" if codec == "euc_kr" else "大山"
    path.write_bytes(f'<?xml version="1.0" encoding="{declared}"?><name>{word}</name>'.encode(codec))
    assert parse_xml(path).text == word
    path.write_bytes(b'<?xml version="1.0" encoding="gb2312"?><name>\xff</name>')
    with pytest.raises(ParseError, match="XML that cannot be read"):
        parse_xml(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h 5s", 3605), (" 2H ", 7200), ("1h2m3s", 3723)],
)
def test_durations(text: str, seconds: int):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1.5h", "-3m", "30 min", "m", "0s", "30m1h", "1:30", "1d"])
def test_the_error_of_a_duration_states_the_format(text: str):
    with pytest.raises(ValueError, match=r"expected a duration such as 90s, 30m, 2h or 1h30m, above 0, found"):
        parse_duration(text)
