"""Documents from every kind of file, and their faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clrelkt.errors import DataError, UnknownNameError
from clrelkt.search import IndexDocument
from clrelkt.search.sources import Fields, open_source

ROWS: list[dict[str, Any]] = [
    {"id": 7, "title": "Tea", "text": 'Tea, it is said, "wakes".\nSo it does.', "year": 1900},
    {"id": "x", "title": "", "text": "Der Tee weckt.", "language": "de", "tag": None},
]


def read(path: object, **options: object) -> list[IndexDocument]:
    return list(open_source(path, **options).read())  # type: ignore[arg-type]


def write_jsonl(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    first, second = read(write_jsonl(tmp_path / "d.jsonl", list(ROWS)))
    assert (first.id, first.title, first.text) == ("7", "Tea", ROWS[0]["text"])
    assert (first.language, dict(first.metadata)) == (None, {"year": 1900})
    assert (second.id, second.language, dict(second.metadata)) == ("x", "de", {})
    (given, _) = read(tmp_path / "d.jsonl", language="fr")
    assert given.language == "fr"


def test_fields_can_be_named_and_ids_are_made(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"body": "no", "t": "Yes.", "metadata": {"a": 1}}])
    (document,) = read(path, fields=Fields(text="t"))
    assert (document.id, document.text) == ("d-1", "Yes.")
    assert dict(document.metadata) == {"body": "no", "a": 1}


def test_csv_tsv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    import csv

    import pyarrow
    from pyarrow import parquet

    names = ["id", "title", "text", "language", "year"]
    for path, delimiter in ((tmp_path / "d.csv", ","), (tmp_path / "d.tsv", "\t")):
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names, delimiter=delimiter, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(ROWS)
    rows = [{name: row.get(name) for name in names} for row in ROWS]
    parquet.write_table(
        pyarrow.Table.from_pylist([row | {"id": str(row["id"])} for row in rows]),
        tmp_path / "d.parquet",
    )
    for name in ("d.csv", "d.tsv", "d.parquet"):
        first, second = read(tmp_path / name)
        assert (first.id, first.title, first.text) == ("7", "Tea", ROWS[0]["text"])
        assert first.metadata["year"] in (1900, "1900")
        assert (second.id, second.title, second.language) == ("x", "", "de")
        assert dict(second.metadata) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"d\.jsonl: line 2: is not valid JSON"),
        ("[1]", r"line 2: is list, expected an object"),
        ('{"txt": "a"}', r"line 2: has no text \(none of text, contents"),
        ('{"text": 5}', r"line 2: text is 5, expected text"),
        ('{"text": "\\ud800"}', r"line 2: text holds half of a surrogate pair"),
        ('{"text": "a", "id": [1]}', r"line 2: its id \[1\] is neither text"),
        ('{"text": "a", "lang": "xx"}', r"line 2: language 'xx' is no code"),
        ('{"text": "a", "n": NaN}', r"line 2: n is nan, which is no number"),
        ("\xff", r"line 2: is not UTF-8 text"),
    ],
)
def test_faults_of_records(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line.encode("latin-1") + b'\n{"text": "good"}\n')
    with pytest.raises(DataError, match=message):
        read(path)
    source = open_source(path, skip_faults=True)
    assert [document.text for document in source.read()] == ["fine", "good"]
    (fault,) = source.left_out
    assert (fault.file, fault.record) == (str(path), "line 2")


def test_faults_of_csv_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("id,text\n1,a\n2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.csv: line 3: has not the 2 fields"):
        read(tmp_path / "d.csv")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read"):
        read(tmp_path / "d.parquet")


def test_a_folder_of_texts(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/no.txt").write_text("no", encoding="utf-8")
    (tmp_path / "a.txt").write_text("One line\nand more.\n\nNext.", encoding="utf-8")
    (tmp_path / "deep/b.md").write_text("# Tea\n\nIt is *hot*.\n\n- a\n- b\n", encoding="utf-8")
    html = (
        "<html><head><title>The  page</title><style>p {}</style></head><body><nav>Menu</nav>"
        "<p>Some <b>bold</b>\n text &amp; more.</p><script>evil()</script>"
        "<p>Last.</p></body></html>"
    )
    (tmp_path / "c.html").write_text(html, encoding="utf-8")
    (tmp_path / "t.txt").write_text("ภาษา\nไทย", encoding="utf-8")
    found = {document.id: document for document in read(tmp_path)}
    assert {id_: (document.title, document.text) for id_, document in found.items()} == {
        "a.txt": ("a", "One line and more.\n\nNext."),
        "deep/b.md": ("Tea", "Tea\n\nIt is hot.\n\na\n\nb"),
        "c.html": ("The page", "Some bold text & more.\n\nLast."),
        "t.txt": ("t", "ภาษาไทย"),
    }
    assert found["deep/b.md"].metadata == {"path": "deep/b.md"}


def test_pdf(tmp_path: Path) -> None:
    path = tmp_path / "d.pdf"
    path.write_bytes(small_pdf("The river has seven bridges."))
    (document,) = read(path)
    assert (document.id, document.text) == ("d.pdf", "The river has seven bridges.")
    path.write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(DataError, match=r"d\.pdf: cannot be read as PDF"):
        read(path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="nosuch"):
        open_source("nosuch")
    with pytest.raises(UnknownNameError, match="'xx'"):
        open_source("xquad", language="xx")
    with pytest.raises(DataError, match="nothing in it can be read"):
        open_source(tmp_path)
    (tmp_path / "d.doc").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"d\.doc: of no known kind"):
        open_source(tmp_path / "d.doc")
    (tmp_path / "e.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(DataError, match=r"e\.txt: there is no text"):
        read(tmp_path / "e.txt")
    (tmp_path / "e.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"e\.txt: byte 0 is not UTF-8"):
        read(tmp_path / "e.txt")


def test_corpora_are_sources(data_folder: Path, tmp_path: Path) -> None:
    documents = read("xquad")
    assert len(documents) == 48
    assert documents[0].language == "en"
    assert documents[0].passages is not None
    (tmp_path / "beir/qrels").mkdir(parents=True)
    write_jsonl(tmp_path / "beir/corpus.jsonl", [{"_id": "1", "title": "T", "text": "Tea."}])
    (beir,) = read(tmp_path / "beir")
    assert (beir.id, beir.title, beir.text) == ("1", "T", "Tea.")
    table = 'doc_id,doc,title\n0,"Bees.\n\nThey hum.",B\n'
    for code in ("de", "th"):
        (tmp_path / f"tables_doc_en-{code}.csv").write_text(table, encoding="utf-8")
    (bees,) = read(tmp_path)
    assert (bees.id, bees.language) == ("0", "en")
    assert bees.passages == (("0#0", "Bees."), ("0#1", "They hum."))


def small_pdf(text: str) -> bytes:
    """Return a PDF of one page, written by hand."""
    stream = f"BT /F1 12 Tf 40 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 200]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    content = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj%s endobj\n" % (number, body)
    start = len(content)
    content += b"xref\n0 6\n0000000000 65535 f \n"
    content += b"".join(b"%010d 00000 n \n" % place for place in places)
    return content + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % start
