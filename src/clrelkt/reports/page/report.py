"""The report of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from clrelkt.evaluation import METRICS, Comparison, Difference, MetricName, Results, compare
from clrelkt.evaluation.errors import EXCERPT, Cause
from clrelkt.evaluation.language_bias import NEAREST
from clrelkt.evaluation.seeds import SeedSummary, aggregate
from clrelkt.reports.figures import (
    Figure,
    bias_figure,
    curves_figure,
    scores_figure,
    separation_figure,
    space_figure,
)
from clrelkt.reports.figures.drawing import SHAPES
from clrelkt.reports.figures.space import (
    document_letter,
    map_data,
    plain_title,
    project_portrait,
)
from clrelkt.reports.language_names import language_name
from clrelkt.reports.markup import Markup, data_block, joined, tag
from clrelkt.reports.page.frame import figure_panels, masthead, page, section
from clrelkt.reports.page.tables import measured_table, score_table
from clrelkt.reports.run_folder import FinishedRun
from clrelkt.reports.tables import figure, group_label
from clrelkt.training.portrait import Portrait, WorstAnswer
from clrelkt.training.recipe import BASELINE, ZERO_SHOT

__all__ = ["render_report", "run_figures"]

_CAUSES: Mapping[Cause, str] = {
    "another-passage-of-the-gold-document": "another passage of the right document was found",
    "answer-in-hit": "the answer stands in what was found, too",
    "missed-in-document-language": "the question in the documents' language is missed as well",
    "no-question-to-compare-with": "",
    "only-this-language": "every other language of this question finds it",
    "several-languages": "the documents' language finds it, several others do not",
}


def run_figures(run: FinishedRun) -> list[Figure]:
    """Return every figure that the run has something to show in."""
    figures: list[Figure | None] = []
    if run.portrait is not None:
        figures.append(space_figure(run.portrait, project_portrait(run.portrait)))
    if run.results:
        figures.append(_scores(run))
    figures.append(curves_figure(_stages(run), run.log))
    if run.portrait is not None:
        figures += [separation_figure(run.portrait), bias_figure(run.portrait)]
    return [drawn for drawn in figures if drawn is not None and drawn.panels]


def render_report(run: FinishedRun) -> str:
    """Return the page: what was run, what came of it, and where it fails."""
    parts = [
        *([_map_section(run.portrait)] if run.portrait else []),
        *([_results_section(run)] if run.results else []),
        *([_measured_section(run)] if run.measured else []),
        _training_section(run),
        *([_separation_section(run.portrait)] if run.portrait else []),
        *([_bias_section(run.portrait)] if run.portrait else []),
        *([_worst_section(run.portrait)] if run.portrait and run.portrait.worst else []),
        _run_section(run),
    ]
    sections = [part for part in parts if part]
    return page(f"clrelkt: {run.title}", _header(run), sections, _footer(run))


def _stages(run: FinishedRun) -> list[str]:
    return [stage.name for stage in run.recipe.stages]


def _scores(run: FinishedRun) -> Figure:
    printed = run.printed()
    if printed is None:
        return scores_figure(run.summaries)
    stages = dict(run.summaries) | {printed.encoder: aggregate([printed])}
    return scores_figure(stages, printed.encoder)


def _header(run: FinishedRun) -> Markup:
    languages = ", ".join(language_name(code) for code in run.languages)
    counted = ""
    if run.portrait is not None:
        counted = f"{run.portrait.questions:,} {run.portrait.split} questions in {languages}. "
    lead = (
        f"The encoder {run.recipe.encoder} was trained on {run.corpus} by the recipe "
        f"{run.recipe.name}: {' → '.join(_stages(run))}. {counted}"
    )
    links = {
        "map": "Map",
        "results": "Results",
        "measured": "Further tests",
        "training": "Training",
        "similarities": "Similarities",
        "bias": "Language bias",
        "worst": "Worst questions",
        "run": "How it was run",
    }
    here = {"training", "run"}
    here |= {"map", "similarities", "bias"} if run.portrait else set()
    here |= {"worst"} if run.portrait and run.portrait.worst else set()
    here |= {"results"} if run.results else set()
    here |= {"measured"} if run.measured else set()
    if run.portrait is not None and not run.portrait.bias[run.portrait.encoders[0]]:
        here.discard("bias")
    return joined(
        [
            masthead("clrelkt: report of a run", run.title),
            tag("p", lead),
            _cards(run),
            tag(
                "nav",
                *(tag("a", name, href=f"#{id_}") for id_, name in links.items() if id_ in here),
                aria_label="Sections",
            ),
        ]
    )


def _cards(run: FinishedRun) -> Markup:
    if not run.results:
        note = "No test question was looked at: this run ends with what dev says."
        return tag("p", note, class_="quiet")
    gains = _gains(run)
    rows = dict(gains.means) | {"all": gains.mean}
    cards = [_card(name, row, gains) for name, row in rows.items()]
    if BASELINE in run.results:
        best = run.results[BASELINE].mean.hit_rate_at_1
        cards.append(
            tag(
                "li",
                tag("div", "BM25 with the question in the documents' language", class_="what"),
                tag("div", f"{best:.1%}", class_="big"),
                tag("div", "what a perfect translator would get from words", class_="what"),
            )
        )
    return tag("ul", *cards, class_="cards")


def _gains(run: FinishedRun) -> Comparison:
    return compare(run.own_results(), run.results[ZERO_SHOT])


def _card(name: str, row: Difference, gains: Comparison) -> Markup:
    codes = f"{len(gains.languages)} languages" if name == "all" else f"languages {_known(name)}"
    way = "up" if row.difference > 0 else "down" if row.difference < 0 else "quiet"
    chance = "p < .001" if row.p < 0.0005 else f"p = {figure(row.p)}"
    return tag(
        "li",
        tag("div", f"hit rate@1, {codes}", class_="what"),
        tag(
            "div",
            tag("span", f"{row.second:.1%} → ", class_="then"),
            f"{row.first:.1%}",
            class_="big",
        ),
        tag(
            "div",
            tag("span", f"{100 * row.difference:+.1f} points", class_=way),
            f" ({100 * row.low:+.1f} to {100 * row.high:+.1f}, {chance})",
            class_="what",
        ),
    )


def _known(group: str) -> str:
    return {
        "supported": "that the encoder knew",
        "unsupported": "that it did not know",
    }.get(group, group_label(group))


def _map_section(portrait: Portrait) -> Markup:
    projection = project_portrait(portrait)
    drawing = space_figure(portrait, projection)
    names = {code: language_name(code) for code in portrait.own}
    drawn = sum(text.is_question for text in portrait.texts)
    text = (
        f"Each mark is a question: its colour says which document answers it, its shape in which "
        f"language it is asked. Squares are {portrait.pool}s, those with a letter of the eight "
        "documents with most questions. Where marks of one shape lie together, the encoder sees "
        "the language; where marks of one colour do, it sees what is asked. "
        f"Filled: the right {portrait.pool} is the nearest of all."
    )
    chosen = f"All {drawn:,} {portrait.split} questions are drawn."
    if drawn < portrait.questions:
        chosen = (
            f"{drawn:,} of {portrait.questions:,} {portrait.split} questions are drawn: some of "
            "each of the eight documents, the others at random; the percentages count all."
        )
    made = (
        f"{chosen} Percentages are means over languages. One {projection.method} "
        "of all encoders' vectors together, so that the pictures compare: near means alike, wide "
        f"distances mean little. The mean of all questions and that of all {portrait.pool}s were "
        "taken away first, as the two kinds lie apart."
    )
    hint = "Point at a mark to read it, or use the arrow keys; choose a language or a document."
    return section(
        "map",
        "The space before and after",
        tag("p", text),
        figure_panels(drawing, _map_legend(portrait)),
        tag("p", hint, class_="quiet hint"),
        tag("p", made, class_="quiet"),
        data_block("map-data", map_data(portrait, names)),
    )


def _map_legend(portrait: Portrait) -> Markup:
    titles = {text.document_id: text.title for text in portrait.texts}
    documents = [
        _chip(_letter(number), plain_title(titles.get(id_, id_)), document=number)
        for number, id_ in enumerate(portrait.documents)
    ]
    languages = [
        _chip(_shape(number % len(SHAPES)), language_name(code), language=code)
        for number, code in enumerate(portrait.own)
    ]
    keys = [
        (_shape(0), f"filled: its {portrait.pool} is nearest"),
        (_shape(0, " hollow"), "hollow: another one is nearer"),
        (
            _icon(tag("rect", x=5, y=5, width=8, height=8, class_="tile cm spot")),
            "other documents" if portrait.pool == "document" else "passages of other documents",
        ),
    ]
    return joined(
        [
            tag("div", tag("span", "document", class_="quiet"), *documents, class_="chips"),
            tag("div", tag("span", "language", class_="quiet"), *languages, class_="chips"),
            tag("div", *(tag("span", icon, text) for icon, text in keys), class_="keys"),
        ]
    )


def _chip(
    icon: Markup, text: str, *, document: int | None = None, language: str | None = None
) -> Markup:
    return tag(
        "button",
        icon,
        text,
        type="button",
        disabled=True,
        aria_pressed="false",
        data_document=None if document is None else str(document),
        data_language=language,
    )


def _icon(*drawn: Markup) -> Markup:
    return tag("svg", *drawn, viewBox="0 0 18 18", class_="figure", aria_hidden="true")


def _shape(number: int, class_: str = "") -> Markup:
    return _icon(tag("use", href=f"#s{number}", x=9, y=9, class_=f"question cm{class_}"))


def _letter(number: int) -> Markup:
    tile = tag("rect", x=1, y=1, width=16, height=16, rx=3.5, class_=f"tile c{number}")
    return _icon(
        tile, tag("text", document_letter(number), x=9, y=12.6, class_=f"letter on{number}")
    )


def _results_section(run: FinishedRun) -> Markup:
    stages = dict(run.summaries)
    printed = run.printed()
    paper = None
    if printed is not None:
        paper = printed.encoder
        stages[paper] = aggregate([printed])
    first = next(iter(run.results.values()))
    scored = "" if first.pool == "passage" else f", scored by {_scored(first)}"
    text = (
        f"Share of {first.split} questions whose gold {first.pool} comes first among all "
        f"{first.pool}s{scored}. Small: 95 % interval, a bootstrap over questions. ▲ marks the "
        "best encoder of a language."
    )
    if paper is not None:
        text += " The paper's figures are of another, unpublished split."
    chart = tag("div", figure_panels(_scores(run)))
    return section(
        "results",
        "Results",
        tag("p", text),
        tag("div", _table(stages, "hit_rate@1", paper), chart, class_="side"),
        *(_more(stages, metric, paper) for metric in METRICS if metric != "hit_rate@1"),
    )


def _scored(results: Results) -> str:
    return {"whole": "one vector of its whole text", "best-passage": "its best passage"}[
        results.document_score
    ]


def _more(stages: Mapping[str, SeedSummary], metric: MetricName, paper: str | None) -> Markup:
    return tag("details", tag("summary", metric), _table(stages, metric, paper))


def _table(stages: Mapping[str, SeedSummary], metric: MetricName, paper: str | None) -> Markup:
    return score_table(stages, metric, apart=(BASELINE, *([paper] if paper else [])))


def _measured_section(run: FinishedRun) -> Markup:
    text = "What else the recipe measures, before training and after each stage."
    tables = []
    for name, by_stage in run.measured.items():
        tables += [tag("h3", name), measured_table(by_stage)]
    return section("measured", "Further tests", tag("p", text), *tables)


def _training_section(run: FinishedRun) -> Markup:
    curves = curves_figure(_stages(run), run.log)
    if not curves.panels:
        return section("training", "Training", tag("p", "The log holds no evaluation."))
    text = (
        "Loss of the batches, thin as they came and bold as a running median, and the share of dev "
        "questions whose gold comes first: bold the mean, thin each language. The mark is the "
        "encoder that the stage kept."
    )
    return section("training", "Training", tag("p", text), figure_panels(curves))


def _separation_section(portrait: Portrait) -> Markup:
    text = (
        f"Cosines of questions with their own {portrait.pool} and with all others, before training "
        "and after it, by each language's own encoder. The less the two overlap, the better. "
        "In percent: how often a gold pair is more alike than another pair, before and after; "
        "50 % is chance."
    )
    drawing = separation_figure(portrait)
    return section(
        "similarities", "Gold pairs and other pairs", tag("p", text), figure_panels(drawing)
    )


def _bias_section(portrait: Portrait) -> Markup:
    drawing = bias_figure(portrait)
    if drawing is None:
        return Markup("")
    text = (
        f"Of the {NEAREST} questions nearest to a question, its own translations left out: the "
        "share that is in the same language. An encoder that goes by what is asked stays at the "
        "upright line; one that sees the language is far to the right of it."
    )
    return section("bias", "Language bias", tag("p", text), figure_panels(drawing))


def _worst_section(portrait: Portrait) -> Markup:
    text = (
        f"The {portrait.split} questions whose gold {portrait.pool} ranks last after training, and "
        "what was found in its place."
    )
    items = [_worst_item(worst, portrait.pool) for worst in portrait.worst]
    return section(
        "worst", "The worst questions", tag("p", text), tag("ol", *items, class_="worst")
    )


def _worst_item(worst: WorstAnswer, pool: str) -> Markup:
    answer = worst.answer
    cause = _CAUSES[answer.cause]
    facts = [
        f"{language_name(answer.language)}, {worst.encoder}: its gold {pool} ranks "
        f"{answer.gold_rank:,}",
        *([cause] if cause else []),
    ]
    given = " / ".join(dict.fromkeys(answer.answers))
    return tag(
        "li",
        tag("p", answer.question, class_="asked", lang=answer.language, dir="auto"),
        *([tag("p", worst.meant, class_="meant", dir="auto")] if worst.meant else []),
        tag("p", "; ".join(facts), class_="facts"),
        tag(
            "div",
            tag(
                "div",
                tag("h4", f"found instead: {answer.hit_id} (cosine {answer.hit_score:.3f})"),
                tag("p", _excerpt(answer.hit_text), dir="auto"),
            ),
            tag(
                "div",
                tag("h4", f"gold: {answer.gold_id} (cosine {answer.gold_score:.3f})"),
                tag("p", _excerpt(answer.gold_text), dir="auto"),
                *([tag("p", f"answer: {given}", class_="quiet", dir="auto")] if given else []),
            ),
            class_="two",
        ),
    )


def _excerpt(text: str) -> str:
    return text if len(text) < EXCERPT else f"{text.rstrip()}…"


def _run_section(run: FinishedRun) -> Markup:
    described = run.described
    environment = described.get("environment", {})
    packages = environment.get("packages", {})
    facts = {
        "recipe": run.recipe.name,
        "corpus": f"{run.corpus} (sha256 {str(described['corpus'].get('sha256', ''))[:16]}…)",
        "seed": f"{run.seed}; split seed {described.get('split_seed')}, split by "
        f"{run.recipe.split_by}",
        "encoder": run.recipe.encoder,
        "weights": f"{described.get('weights')} "
        f"(sha256 {str(described.get('weights_sha256', ''))[:16]}…)",
        "hardware": f"{environment.get('hardware')}; trained on {described.get('device')} with "
        f"{described.get('threads')} threads",
        "versions": ", ".join(
            [f"Python {environment.get('python')}"]
            + [f"{name} {version}" for name, version in packages.items() if version]
        ),
        "commit": str(environment.get("commit") or "not a checkout"),
        "time": _times(run.seconds),
    }
    translated = described["corpus"].get("translated_by")
    if translated:
        counts = (f"{count:,} by {model}" for model, count in translated.items())
        facts["machine-translated questions"] = ", ".join(counts)
    recipe = json.dumps(run.recipe.to_json(), ensure_ascii=False, indent=1)
    return section(
        "run",
        "How it was run",
        tag(
            "dl", *(joined([tag("dt", k), tag("dd", v)]) for k, v in facts.items()), class_="facts"
        ),
        tag("details", tag("summary", "the recipe in full"), tag("pre", tag("code", recipe))),
    )


def _times(seconds: Mapping[str, float]) -> str:
    if not seconds:
        return "not recorded"
    parts = [f"{name} {_duration(spent)}" for name, spent in seconds.items()]
    return f"{_duration(sum(seconds.values()))} in all: {', '.join(parts)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _footer(run: FinishedRun) -> Markup:
    version = run.described.get("environment", {}).get("packages", {}).get("clrelkt")
    named = f"clrelkt {version}" if version else "clrelkt"
    return joined(
        [
            f"Made by {named} from the files of the run; ",
            tag("code", "clrelkt report RUN"),
            " makes it again, and figures as SVG and PNG with ",
            tag("code", "--figures FOLDER"),
            ".",
        ]
    )
