from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clrelkt.corpora.check import check_path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "title", "paragraphs", "context", "qas", "id", "question"])
            | st.sampled_from(["answers", "text", "answer_start", "lang", "is_impossible"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)


def test_what_is_not_there_or_of_no_form_is_a_fault(tmp_path: Path) -> None:
    (absent,) = check_path(tmp_path / "nowhere.json")
    assert absent.message == "does not exist"
    (empty,) = check_path(tmp_path)
    assert empty.message == "has no .json or .jsonl file"
    text = tmp_path / "text.csv"
    text.write_text("a,b\n", encoding="utf-8")
    (unknown,) = check_path(text)
    assert unknown.message == "is of no known form; expected .json or .jsonl"


def test_folders_below_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.json").write_text("{}", encoding="utf-8")
    (tmp_path / "a/d.jsonl").write_text("1\n", encoding="utf-8")
    assert sorted({Path(f.file).name for f in check_path(tmp_path)}) == ["c.json", "d.jsonl"]


@given(content=JSON | st.fixed_dictionaries({"data": st.lists(JSON, max_size=3)}))
def test_no_content_makes_the_check_fail(content: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.en.json", "a.de.json", "dev-context-en-question-de.json"):
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        (Path(folder) / "xor_train_retrieve.jsonl").write_text(
            json.dumps(content), encoding="utf-8"
        )
        assert check_path(Path(folder))


@given(content=st.binary(max_size=60))
def test_no_bytes_make_the_check_fail(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        assert check_path(path)
