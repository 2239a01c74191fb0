"""Real servers on free ports, over small indexes that mUSE has made."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from clrelkt.encoders import MuseEncoder
from clrelkt.reader import Reader
from clrelkt.search import Index, IndexDocument
from clrelkt.server import Address, ServerSettings, make_server
from clrelkt.server.questions import EncodeQuestions
from clrelkt.server.running import bound_socket
from clrelkt.server.service import SearchService

HOSTILE = (
    '<script>window.wasRun = 1</script><img src=x onerror="window.wasRun = 1"> &amp; '
    "<b>Scripts</b> in a text are text. 🦊 They stay what they are, \u202eeven backwards\u202c."
)
DOCUMENTS = (
    IndexDocument(
        "fleming",
        "Alexander Fleming was a doctor in London. He discovered penicillin in 1928. "
        "A mould had killed the bacteria in a dish that he had left open.",
        "Alexander_Fleming",
        "en",
        {"year": 1928, "field": "medicine"},
    ),
    IndexDocument(
        "bridge",
        "Die alte Brücke wurde 1209 gebaut. Sie hat sieben Bögen aus Stein.",
        "Die Brücke",
        "de",
        {"year": 1209},
    ),
    IndexDocument(
        "harvard",
        "تأسست جامعة هارفارد عام 1636 في ولاية ماساتشوستس. وهي أقدم جامعة في الولايات المتحدة.",
        "جامعة هارفارد",
        "ar",
    ),
    IndexDocument(
        "oxygen", "氧气由舍勒和普利斯特里发现。拉瓦锡给它命名。空气中约五分之一是氧气。", "氧", "zh"
    ),
    IndexDocument("elephant", "ช้างเป็นสัตว์บกที่ใหญ่ที่สุด ช้างกินหญ้าและใบไม้", "ช้าง", "th"),
    IndexDocument("mango", "आम गर्मियों का फल है। भारत में आम को फलों का राजा कहते हैं।", "आम", "hi"),
    IndexDocument("<script>/a&b?c#d", HOSTILE, "<script>alert(1)</script>", "en"),
    IndexDocument(
        "bees",
        title="Bees",
        language="en",
        passages=(("b-1", "Bees make honey."), ("b-2", "They live in hives.")),
    ),
)


@dataclass(frozen=True)
class Answered:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Served:
    """A server that runs on a thread of its own."""

    port: int
    service: SearchService
    stop: Callable[[], None] = field(repr=False)

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.port}/"

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """Send one request on a connection of its own."""
        connection = self.connect()
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Answered:
        """Send a GET."""
        return self.ask("GET", f"{path}?{urlencode(query, doseq=True)}" if query else path)

    def post(self, value: Any) -> Answered:
        """Send a search as JSON."""
        headers = {"content-type": "application/json"}
        return self.ask("POST", "/search", json.dumps(value).encode(), headers)


Serve = Callable[..., Any]


@contextmanager
def running(
    index: Index,
    settings: ServerSettings | None = None,
    reader: Reader | None = None,
    encode: EncodeQuestions | None = None,
) -> Iterator[Served]:
    """Run a server until the block ends; it must end by itself when told to."""
    service = SearchService(index, settings, reader, encode)
    server = make_server(service, Address(port=0), grace=20)
    with bound_socket(Address(port=0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)

        def stop() -> None:
            server.should_exit = True
            thread.join(30)

        try:
            yield Served(sock.getsockname()[1], service, stop)
        finally:
            stop()
            assert not thread.is_alive(), "the server did not end"


@pytest.fixture(scope="session")
def index_folder(muse: MuseEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "index"
    Index.build(muse, DOCUMENTS, folder).close()
    return folder


@pytest.fixture(scope="session")
def index(muse: MuseEncoder, index_folder: Path) -> Index:
    """Mind that all tests share it: none may change it."""
    return Index.open(index_folder, muse)


@pytest.fixture(scope="session")
def served(index: Index) -> Iterator[Served]:
    """A server with the limits that it has by itself."""
    with running(index) as found:
        yield found


@pytest.fixture(scope="session")
def toy_reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """A reader that has learnt nothing: its answers are spans, good or not."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordLevel({m: n for n, m in enumerate(marks)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=128,
    )  # fmt: skip
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=128,
    )  # fmt: skip
    return Reader("toy", fast, BertForQuestionAnswering(config).eval())
