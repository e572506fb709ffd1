"""Reading of a YAML file with options."""

from pathlib import Path

import pytest

from retinanet.config.option_file import read_yaml
from retinanet.errors import ConfigError


def test_a_file_of_options_as_values(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfepochs: 3\nloss: focal\n")
    assert read_yaml(path) == {"epochs": 3, "loss": "focal"}
    path.write_text("# nothing is set\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "must hold `option: value` lines, found list"),
        (b"1: a\n", "must hold `option: value` lines, found dict"),
        (b"a: [\n", "not YAML"),
        (b"\xff\xfe\n", "not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_options_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_yaml(tmp_path / "c.yaml")
