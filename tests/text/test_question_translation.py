from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clrelkt.cli.data import data
from clrelkt.cli.main import main
from clrelkt.corpora import Corpus, Question, load_corpus
from clrelkt.corpora.translations import Flaw, translations_beside
from clrelkt.errors import CorpusError, DataError, SettingsError, StorageError, UnknownNameError
from clrelkt.text.machine_translation import GenerationSettings, TranslationModels
from clrelkt.text.question_translation import TranslationReport, translate_questions

GERMAN = {
    "Wer macht Honig?": "Who makes honey?",
    "Woraus ist Stahl?": "What is steel made of?",
    "Wer legt Eier?": "Who lays eggs?",
    "Welches Metall rostet?": "Which metal rusts?",
    "Was?": "What?",
}


def ask(language: str, number: int, text: str) -> Question:
    return Question(f"{language}:{number}", language, text, None, None, (), str(number))


GERMAN_QUESTIONS = tuple(ask("de", number, text) for number, text in enumerate(GERMAN))
CORPUS = Corpus(
    "made",
    (
        *GERMAN_QUESTIONS,
        ask("de", 5, "Was?"),
        ask("de", 6, "Wie bitte?"),
        ask("en", 6, "Pardon?"),
    ),
    (),
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def by_id(path: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in lines(path)}


def fill(path: Path, models: Any, corpus: Corpus = CORPUS, **more: Any) -> TranslationReport:
    return translate_questions(corpus, path, models, **{"batch": 2, **more})


@pytest.fixture
def models(marian: Path) -> TranslationModels:
    return TranslationModels(str(marian))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "translations.jsonl"


class Stopping:
    """Models that work, until the process is stopped after so many batches."""

    def __init__(self, models: TranslationModels, batches: int) -> None:
        self.settings = models.settings
        self.name = models.name
        self.texts: list[str] = []
        self._models = models
        self._batches = batches

    def open(self, language: str) -> Stopping:
        self._model = self._models.open(language)
        return self

    @property
    def record(self) -> Mapping[str, Any]:
        return self._model.record

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, Flaw | None]]:
        if not self._batches:
            raise KeyboardInterrupt
        self._batches -= 1
        self.texts += texts
        return self._model(texts)


def test_every_question_gets_the_translation_of_its_text(
    path: Path, models: TranslationModels
) -> None:
    report = fill(path, models)
    found = by_id(path)
    assert {id_: line["translation"] for id_, line in found.items()} == {
        **{q.id: GERMAN[q.text] for q in GERMAN_QUESTIONS},
        "de:5": "What?",
    }
    for question in CORPUS.questions[:6]:
        line = found[question.id]
        assert (line["language"], line["text"]) == (question.language, question.text)
        assert (line["target"], line["flaw"]) == ("en", None)
        assert line["model"] == models.open("de").record
    assert report == TranslationReport(
        path=path,
        human=1,
        kept=0,
        repeated=1,
        translated=5,
        left=0,
        flaws={},
        languages={"de": 6},
    )


def test_no_text_is_translated_twice(path: Path, models: TranslationModels) -> None:
    counting = Stopping(models, 99)
    fill(path, counting)
    assert sorted(counting.texts) == sorted(GERMAN)
    again = Stopping(models, 0)
    written = path.read_bytes()
    assert fill(path, again).kept == 6
    assert path.read_bytes() == written
    # A new question in the words of an old one needs no model.
    more = CORPUS.with_questions((*CORPUS.questions, ask("de", 7, "Wer legt Eier?")))
    report = fill(path, again, more)
    assert (report.repeated, report.translated, report.kept) == (1, 0, 6)
    assert by_id(path)["de:7"]["translation"] == "Who lays eggs?"


def test_the_longest_go_first(path: Path, models: TranslationModels) -> None:
    counting = Stopping(models, 99)
    fill(path, counting)
    lengths = [len(text) for text in counting.texts]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_call_that_was_stopped_goes_on(
    batches: int, path: Path, models: TranslationModels, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(path, Stopping(models, batches))
    before = len(lines(path)) if batches else 0
    assert path.exists() == bool(batches)
    assert before >= 2 * batches
    going_on = Stopping(models, 99)
    assert fill(path, going_on).kept == before
    assert len(going_on.texts) == 5 - 2 * batches
    whole = tmp_path / "whole.jsonl"
    fill(whole, models)
    assert by_id(path) == by_id(whole)


@pytest.fixture(scope="module")
def whole_file(marian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "translations.jsonl"
    fill(path, TranslationModels(str(marian)))
    return path


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1))
def test_a_file_that_a_kill_cut_anywhere_is_completed(
    share: float, whole_file: Path, models: TranslationModels, tmp_path: Path
) -> None:
    content = whole_file.read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(content[: int(share * len(content))])
    fill(cut, models)
    assert by_id(cut) == by_id(whole_file)
    assert len(lines(cut)) == 6
    assert cut.read_bytes().endswith(b"\n")


def test_a_last_line_without_its_end_is_kept(
    whole_file: Path, models: TranslationModels, path: Path
) -> None:
    path.parent.mkdir()
    path.write_bytes(whole_file.read_bytes()[:-1])
    assert fill(path, Stopping(models, 0)).kept == 6
    assert path.read_bytes() == whole_file.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        '{"data": []}',
        '{"version": "1",\n "data": []}',
        '{"id": "1", "question": "Was?", "lang": "de", "answers": ["a"]}',
        '{"id": "1", "question": "Was?"}\n{"id": "2", "ques',
        "some notes\nof mine",
    ],
)
def test_another_file_is_left_as_it_is(content: str, path: Path, models: TranslationModels) -> None:
    path.parent.mkdir()
    path.write_text(content, "utf-8")
    with pytest.raises(CorpusError, match=str(path)):
        fill(path, models)
    assert path.read_text("utf-8") == content


def test_a_limit_is_a_number_of_questions(path: Path, models: TranslationModels) -> None:
    report = fill(path, models, limit=2)
    assert (report.translated, report.left) == (2, 4)
    assert set(by_id(path)) == {"de:0", "de:1"}
    assert fill(path, models, limit=0).left == 4
    assert fill(path, models).left == 0


def test_languages_can_be_chosen(path: Path, m2m100: Path) -> None:
    corpus = CORPUS.with_questions((ask("fi", 1, "Radio?"), ask("de", 2, "Radio?")))
    models = TranslationModels(str(m2m100))
    assert fill(path, models, corpus, languages=["fi"]).languages == {"fi": 1}
    assert fill(path, models, corpus).languages == {"de": 1, "fi": 1}
    found = by_id(path)
    assert found["fi:1"]["translation"] == "Which metal rusts?"
    assert found["de:2"]["translation"] == "Who makes honey?"
    with pytest.raises(UnknownNameError, match="no questions in 'ja'"):
        fill(path, models, corpus, languages=["ja"])
    with pytest.raises(SettingsError, match="'en' is the language of the documents"):
        fill(path, models, CORPUS, languages=["de", "en"])


def test_what_was_cut_short_is_tried_again_with_more_room(path: Path, marian: Path) -> None:
    short = TranslationModels(str(marian), settings=GenerationSettings(max_new_tokens=4))
    report = fill(path, short)
    marked = {id_ for id_, line in by_id(path).items() if line["flaw"] == "cut short"}
    assert marked
    assert report.flaws == {"cut short": len(marked)}
    assert fill(path, Stopping(short, 0)).flaws == report.flaws
    roomy = TranslationModels(str(marian))
    assert fill(path, roomy).flaws == {}
    for id_, line in by_id(path).items():
        assert line["model"]["settings"]["max_new_tokens"] == (128 if id_ in marked else 4)
        assert line["translation"] == GERMAN[line["text"]]


def test_a_question_that_reads_otherwise_now_is_translated_anew(
    path: Path, models: TranslationModels
) -> None:
    fill(path, models)
    changed = CORPUS.with_questions(
        replace(question, text="Was?") if question.id == "de:0" else question
        for question in CORPUS.questions
    )
    report = fill(path, models, changed)
    assert (report.kept, report.repeated) == (5, 1)
    assert by_id(path)["de:0"]["translation"] == "What?"


def test_another_corpus_or_model_or_revision(
    path: Path, models: TranslationModels, marian: Path, tmp_path: Path
) -> None:
    fill(path, models, limit=2)
    written = path.read_bytes()
    other = CORPUS.with_questions([ask("de", 9, "Was?")])
    with pytest.raises(DataError, match="'made' has no use for; name another file with -o"):
        fill(path, models, other)
    (tmp_path / "twin").symlink_to(marian)
    with pytest.raises(DataError, match=f"was translated by '{marian}', not by"):
        fill(path, TranslationModels(str(tmp_path / "twin")))
    assert path.read_bytes() == written
    path.write_bytes(written.replace(b'"revision": null', b'"revision": "abc"'))
    with pytest.raises(DataError, match=r"by revision abc of .*, and this is revision None"):
        fill(path, models)


def test_two_at_a_time(path: Path, models: TranslationModels) -> None:
    path.parent.mkdir()
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(StorageError, match="another process is translating into"):
        fill(path, models)
    os.close(folder)
    assert fill(path, models).left == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path, models: TranslationModels) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(StorageError):
        fill(tmp_path / "file" / "t.jsonl", models)


@pytest.fixture
def german_file(tmp_path: Path) -> Path:
    """German questions on an English text."""
    qas = [
        {"id": str(number), "question": text, "answers": [{"text": "Ada", "answer_start": 0}]}
        for number, text in enumerate(GERMAN)
    ]
    article = {"title": "Tea", "paragraphs": [{"context": "Ada drank it.", "qas": qas}]}
    path = tmp_path / "tea.question-de.json"
    path.write_text(json.dumps({"data": [article]}), encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    everything = ["translate", *map(str, arguments), "--device", "cpu"]
    return CliRunner().invoke(data, everything, catch_exceptions=False)


def test_the_command_writes_beside_the_corpus(german_file: Path, marian: Path) -> None:
    trial = run(german_file, "--model", marian, "--limit", "2")
    assert trial.exit_code == 0, trial.output
    assert "2 translated now" in trial.stdout
    assert "3 questions are left" in trial.stdout
    done = run(german_file, "--model", marian, "--languages", "de", "--batch", "2", "--json")
    assert json.loads(done.stdout) == {
        "path": str(translations_beside(german_file)),
        "human": 0,
        "kept": 2,
        "repeated": 0,
        "translated": 3,
        "left": 0,
        "flaws": {},
        "languages": {"de": 5},
    }
    corpus = load_corpus(german_file)
    for question in corpus.questions_in("de"):
        translation = corpus.translation(question, "en")
        assert translation is not None
        assert (translation.text, translation.translated_by) == (GERMAN[question.text], str(marian))
    # The translations are no questions of people's, so there is nothing new to translate.
    assert json.loads(run(german_file, "--model", marian, "--json").stdout)["kept"] == 5


def test_the_command_says_what_is_marked(german_file: Path, marian: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    done = run(german_file, "--model", marian, "-o", out, "--max-new-tokens", "2", "--beams", "1")
    assert done.stderr == "5 translations are cut short: marked, and used nowhere\n"
    assert len(lines(out)) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "{folder}/nowhere"], "no translation model '{folder}/nowhere'"),
        (["--model", "x", "--languages", "fi"], "no questions in 'fi'"),
        (["--model", "x", "--device", "abacus"], "device 'abacus' is not known"),
    ],
)
def test_one_line_and_status_1(
    arguments: list[str],
    message: str,
    german_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = str(german_file.parent)
    given_ = [argument.replace("{folder}", folder) for argument in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["data", "translate", str(german_file), *given_])
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message.replace("{folder}", folder) in printed
    assert len(printed.strip().splitlines()) == 1
    assert not translations_beside(german_file).exists()
