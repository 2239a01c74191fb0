"""Translation models of Hugging Face: Marian, M2M100 and NLLB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from clrelkt.corpora.translations import Flaw
from clrelkt.errors import ClrelktError, MissingExtraError, SettingsError, UnknownNameError
from clrelkt.progress import quiet_transformers

__all__ = ["GenerationSettings", "TranslationModel", "TranslationModels"]

_MODEL_TYPES = ("marian", "m2m_100")

_FLORES = """
af afr_Latn ak aka_Latn am amh_Ethi ar arb_Arab as asm_Beng ay ayr_Latn az azj_Latn ba bak_Cyrl
be bel_Cyrl bg bul_Cyrl bm bam_Latn bn ben_Beng bo bod_Tibt bs bos_Latn ca cat_Latn cs ces_Latn
cy cym_Latn da dan_Latn de deu_Latn dz dzo_Tibt ee ewe_Latn el ell_Grek en eng_Latn eo epo_Latn
es spa_Latn et est_Latn eu eus_Latn fa pes_Arab ff fuv_Latn fi fin_Latn fj fij_Latn fo fao_Latn
fr fra_Latn ga gle_Latn gd gla_Latn gl glg_Latn gn grn_Latn gu guj_Gujr ha hau_Latn he heb_Hebr
hi hin_Deva hr hrv_Latn ht hat_Latn hu hun_Latn hy hye_Armn id ind_Latn ig ibo_Latn is isl_Latn
it ita_Latn ja jpn_Jpan jv jav_Latn ka kat_Geor kg kon_Latn ki kik_Latn kk kaz_Cyrl km khm_Khmr
kn kan_Knda ko kor_Hang ku kmr_Latn ky kir_Cyrl lb ltz_Latn lg lug_Latn li lim_Latn ln lin_Latn
lo lao_Laoo lt lit_Latn lv lvs_Latn mg plt_Latn mi mri_Latn mk mkd_Cyrl ml mal_Mlym mn khk_Cyrl
mr mar_Deva ms zsm_Latn mt mlt_Latn my mya_Mymr nb nob_Latn ne npi_Deva nl nld_Latn nn nno_Latn
no nob_Latn ny nya_Latn oc oci_Latn om gaz_Latn or ory_Orya pa pan_Guru pl pol_Latn ps pbt_Arab
pt por_Latn qu quy_Latn rn run_Latn ro ron_Latn ru rus_Cyrl rw kin_Latn sa san_Deva sc srd_Latn
sd snd_Arab sg sag_Latn si sin_Sinh sk slk_Latn sl slv_Latn sm smo_Latn sn sna_Latn so som_Latn
sq als_Latn sr srp_Cyrl ss ssw_Latn st sot_Latn su sun_Latn sv swe_Latn sw swh_Latn ta tam_Taml
te tel_Telu tg tgk_Cyrl th tha_Thai ti tir_Ethi tk tuk_Latn tl tgl_Latn tn tsn_Latn tr tur_Latn
ts tso_Latn tt tat_Cyrl tw twi_Latn ug uig_Arab uk ukr_Cyrl ur urd_Arab uz uzn_Latn vi vie_Latn
wo wol_Latn xh xho_Latn yi ydd_Hebr yo yor_Latn zh zho_Hans zu zul_Latn
"""
_CODES = _FLORES.split()
_FLORES_CODES: Mapping[str, str] = MappingProxyType(
    dict(zip(_CODES[::2], _CODES[1::2], strict=True))
)
"""FLORES-200's code, which NLLB uses, for each of ISO 639-1 that has one."""


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How translations are searched for.

    ``beams`` None is what the checkpoint itself asks for; ``max_new_tokens`` ends a translation
    that does not end by itself.
    """

    beams: int | None = None
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or (self.beams is not None and self.beams < 1):
            raise SettingsError(
                f"beams {self.beams}, max_new_tokens {self.max_new_tokens}: at least 1 each"
            )

    def differ_from(self, recorded: Mapping[str, Any]) -> bool:
        """Tell whether these settings may give another translation than ``recorded`` ones."""
        return recorded.get("max_new_tokens") != self.max_new_tokens or (
            self.beams is not None and recorded.get("beams") != self.beams
        )


class TranslationModels:
    """The model behind a name; with ``{language}`` in it, one model a language of questions.

    At most one is loaded at a time.
    """

    def __init__(
        self,
        name: str,
        *,
        target: str = "en",
        settings: GenerationSettings | None = None,
        device: str = "cpu",
    ) -> None:
        self.settings = settings or GenerationSettings()
        self._name = name
        self._target = target
        self._device = device
        self._loaded: tuple[str, Any, Any] | None = None

    def name(self, language: str) -> str:
        """Return the name of the model that translates from ``language``."""
        return self._name.replace("{language}", language)

    def open(self, language: str) -> TranslationModel:
        """Return the model that translates from ``language``; it is fetched where it must be.

        Raises:
            MissingExtraError: transformers or SentencePiece is not installed.
            UnknownNameError: there is no such model.
            SettingsError: it is of another type, or does not know one of the languages.
        """
        name = self.name(language)
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None
            self._loaded = (name, *_load(name, self._device))
        return TranslationModel(
            name, *self._loaded[1:], source=language, target=self._target, settings=self.settings
        )


class TranslationModel:
    """A model that translates texts of one language."""

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        model: Any,
        *,
        source: str,
        target: str,
        settings: GenerationSettings,
    ) -> None:
        import transformers

        self._tokenizer = tokenizer
        self._model = model
        self._prefix, self._generation = _languages(name, tokenizer, source, target)
        beams = settings.beams or getattr(model.generation_config, "num_beams", None) or 1
        self._generation["num_beams"] = beams
        self._longest = int(model.config.max_position_embeddings)
        # The start token, and the target language's where there is one, have places too.
        self._skip = 1 + ("forced_bos_token_id" in self._generation)
        self._generation["max_new_tokens"] = min(settings.max_new_tokens, self._longest - 1)
        self.record: Mapping[str, Any] = {
            "name": name,
            "revision": getattr(model.config, "_commit_hash", None),
            "settings": {"beams": beams, "max_new_tokens": settings.max_new_tokens},
            "transformers": transformers.__version__,
        }

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, Flaw | None]]:
        """Translate texts; each comes back with what is wrong with it, if anything is."""
        import torch

        whole = self._tokenizer([self._prefix + text for text in texts])["input_ids"]
        inputs = self._tokenizer(
            [self._prefix + text for text in texts],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self._longest,
        ).to(self._model.device)
        try:
            with torch.inference_mode(), quiet_transformers():
                rows = self._model.generate(**inputs, **self._generation)
        except torch.cuda.OutOfMemoryError as error:
            raise SettingsError(
                f"{len(texts)} questions at a time are more than the GPU holds; set a smaller "
                "--batch. What is translated so far is kept"
            ) from error
        # M2M100 starts with the end mark itself, and its language codes are no special tokens.
        rows = rows[:, self._skip :]
        found = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        ended = [self._tokenizer.eos_token_id in row for row in rows.tolist()]
        return [
            (text.strip(), _flaw(text, done and len(ids) <= self._longest))
            for text, done, ids in zip(found, ended, whole, strict=True)
        ]


def _flaw(text: str, complete: bool) -> Flaw | None:
    if not complete:
        return "cut short"
    return None if text.strip() else "empty"


def _load(name: str, device: str) -> tuple[Any, Any]:
    try:
        import sentencepiece  # noqa: F401
        from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError("transformers or sentencepiece", "translate") from error
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(name)
            if config.model_type not in _MODEL_TYPES:
                raise SettingsError(
                    f"model {name!r} is of type {config.model_type!r}; expected one of "
                    f"{', '.join(_MODEL_TYPES)} (Marian, M2M100, NLLB)"
                )
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForSeq2SeqLM.from_pretrained(name)
    except ClrelktError:
        raise
    except Exception as error:  # Of a damaged checkpoint the library raises errors of any kind.
        reason = " ".join(str(error).split())
        raise UnknownNameError(
            f"no translation model {name!r}: neither a folder that holds one nor a name that the "
            f"model hub gave out ({type(error).__name__}: {reason[:200]})"
        ) from error
    # Checkpoints of Marian force an end mark on the last token, which would hide that the limit
    # was reached; their own limit would warn beside ours.
    model.generation_config.forced_eos_token_id = None
    model.generation_config.max_length = None
    model.generation_config.do_sample = False
    return tokenizer, model.to(device).eval()


def _languages(name: str, tokenizer: Any, source: str, target: str) -> tuple[str, dict[str, Any]]:
    """Set the tokenizer's source; return what goes before each text, and what generation needs."""
    if not hasattr(tokenizer, "src_lang"):
        marks = getattr(tokenizer, "supported_language_codes", [])
        wanted = (f">>{_FLORES_CODES.get(target, target)[:3]}<<", f">>{target}<<")
        return next((f"{mark} " for mark in wanted if mark in marks), ""), {}
    codes = [_code(name, tokenizer, language) for language in (source, target)]
    tokenizer.src_lang = codes[0][0]
    return "", {"forced_bos_token_id": codes[1][1]}


def _code(name: str, tokenizer: Any, language: str) -> tuple[str, int]:
    """Return the tokenizer's own code of a language, and the token that stands for it."""
    if hasattr(tokenizer, "get_lang_id"):
        if language in tokenizer.lang_code_to_id:
            return language, int(tokenizer.get_lang_id(language))
    else:
        code = _FLORES_CODES.get(language, language)
        token = tokenizer.convert_tokens_to_ids(code)
        if token is not None and token != tokenizer.unk_token_id:
            return code, int(token)
    raise SettingsError(f"model {name!r} does not know the language {language!r}")
