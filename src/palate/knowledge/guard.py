"""Defences against the text of strangers: what an item says is data, and must not steer who reads it.

Each can be switched off, so that its price can be measured (`palate annotate attack`). Closed answer sets
(`Request.options`), evidence that must occur in the item (`prompt.verified`) and defused control tokens
(`palate.llm.prompts`) are always on.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from functools import lru_cache

from pydantic import BaseModel, ConfigDict


class GuardConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    delimit: bool = True
    """The item stands between marks that its author cannot foresee."""
    strip: bool = True
    """What is no prose is taken out: control tokens, invisible characters, markup, comments, JSON, encoded blobs."""
    cut: bool = True
    """Sentences that speak to the reader about the answer are taken out."""
    repeat: bool = True
    """After the item it is said again that it was data."""
    neutral: bool = False
    """One further question, about nothing, is asked of each item; what is answered to it is divided out."""


OFF = GuardConfig(delimit=False, strip=False, cut=False, repeat=False, neutral=False)


def mark_of(text: str, salt: str) -> str:
    """8 hex digits that stand around `text`: the same for the same text, so that answers are found in the ledger.

    Without `salt`, a secret of the project, nobody can foresee them; whoever changes the text changes them.
    """
    return hmac.new(salt.encode(), text.encode("utf-8", "replace"), "sha256").hexdigest()[:8]


def block(text: str, options: tuple[str, ...], config: GuardConfig, salt: str = "") -> str:
    """`text` as it stands in a prompt. Whatever it says, its closing mark occurs once, at the end."""
    shown = guarded(text, options, config)
    if not config.delimit:
        return f"Item: {shown}"
    mark = mark_of(shown, salt)
    inside = shown.replace(mark, "")  # by chance alone, and only where its digits do not close up to it again
    while mark in inside:
        inside = inside.replace(mark, "")
    return f"<item-{mark}>\n{inside}\n</item-{mark}>"


def guarded(text: str, options: tuple[str, ...], config: GuardConfig) -> str:
    """`text` without what `config` takes out."""
    if config.strip:
        text = _prose(text)
    if config.cut:
        text = cut(text, options)[0]
    return text.replace(_MACHINE, " ").strip() if config.strip else text


_MACHINE = "\0"  # stands where something for machines stood: the sentence around it is no prose either
_FOR_MACHINES = re.compile(
    r"<!--.*?(?:-->|\Z)"  # comments
    r"|^[ \t]*\[[^\]\n]{0,40}\]:[ \t]*#.*$"  # markdown's way to write one
    r"|<\|[^|<>\n]{0,60}\|>|<</?[A-Z_]{1,20}>>|<(?:start|end)_of_turn>|</?s>"  # chat templates
    r"|\[/?(?:INST|SYS|(?:END )?SYSTEM[A-Z ]*)\]"
    r"|\{[^{}]{0,800}\}"  # JSON
    r"|(?-i:(?<![\w+/])(?=[a-z+/0-9]*[A-Z])(?=[A-Za-z+/]*[0-9])(?=[A-Z+/0-9]*[a-z])[A-Za-z0-9+/]{32,}={0,2})"  # encoded
    r"|^[\W_]*(?:system|assistant|user|human|developer|operator|instructions?|question|answers?|options?|item|label|"
    r"examples?|output|response|result)[ \t]*(?:message|prompt|turn|\d{1,3})?[ \t]*:",  # who speaks
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_MARKUP = re.compile(r"</?[A-Za-z][^<>]{0,300}>|`{3,}\w*|[-=#*~_]{3,}")  # tags, fences, rules


def plain(text: str) -> str:
    """`text` as prose: compatible letters made one, no invisible characters, no markup, no role headers."""
    return _prose(text).replace(_MACHINE, " ").strip()


def _prose(text: str) -> str:
    """As `plain`, with `_MACHINE` where something for machines stood.

    Taking something out can bring together what was apart, so it is done until nothing is left to take.
    """
    text = unicodedata.normalize("NFKC", text)
    text = "".join(ch for ch in text if ch in "\n\t" or unicodedata.category(ch)[0] != "C")
    while (less := _MARKUP.sub(" ", _FOR_MACHINES.sub(_MACHINE, text))) != text:
        text = less
    return text


_ADDRESSED = (
    # what to do with the rules
    r"\b(?:ignor\w*|disregard\w*|forget|overrid\w*|bypass\w*|oubli\w*|vergiss|olvid\w*|dimentica\w*|забуд\w*|игнорир\w*)\b"
    r".{0,60}\b(?:instruct\w*|above|previous instr\w*|prior|earlier|preceding|rules?|prompts?|question|anweisung\w*|"
    r"consignes?|précédent\w*|instruc\w*|anterior\w*|istruzion\w*|указан\w*|предыдущ\w*)",
    # what to answer
    r"\b(?:answer|reply|replies|replied|responds?|outputs?|label|labell?ed|classif\w+|choose|pick|select|say|said|write|"
    r"rate[ds]?|mark|annotat\w+|verdict|antwort\w*|répon\w+|respond\w+|respuesta|rispond\w+|risposta|ответ\w*|отвеч\w*)\b"
    r"(?:.{0,40}\b(?:with|as|is|are|only|always|just|correct|allowed|be)\b.{0,20})?\W{1,3}"
    r"(?:only |always |just )?OPTION",
    r"\b(?:allowed|only|correct|right|expected|final|official|true|valid|gold\w*|good|seule|richtige|correcta|"
    r"правильный)\s+(?:\w+\s+)?(?:answer|label|option|response|verdict|choice|classification|réponse|antwort|respuesta|ответ)\b",
    r"\b(?:the|your|my)\s+(?:answer|verdict|label|choice|conclusion|classification)\b.{0,60}\b(?:is|be|are)\W{1,3}OPTION",
    r"\bdo not (?:say|answer|choose|pick|select)\b",
    r"\b(?:if you do not|if you don't|whenever) (?:pick|choose|answer|say|select|your)\b",
    r"\byou (?:must|have to|are (?:required|instructed) to)\b.{0,20}\b(?:answer|say|choose|pick|select|reply|label)\b",
    # who reads
    r"\b(?:language model|AI model|chat ?bot|annotators?|labell?ers?|raters?|classifier|system (?:prompt|message)|"
    r"assistant (?:replies|answers|says))\b",
    # where the item is said to end
    r"\b(?:end of (?:the )?(?:item|text|data|document|input|description)|(?:item|data|text|input) ends here)\b",
    r"(?:忽略|无视|回答|答案|指令|指示|無視|답변|대답|무시|تجاهل|أجب)",
    # nothing but options
    r"^\W*(?:OPTION\W*)+$|\b(\w+)(?:\W+\1\b){4,}|[,:]\s*OPTION\W*$|\(\s*[A-E]\s*\)\s*OPTION",
)


@lru_cache(maxsize=64)
def _to_the_reader(options: tuple[str, ...]) -> re.Pattern[str]:
    one_of = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    return re.compile("|".join(_ADDRESSED).replace("OPTION", rf"(?:{one_of})\b"), re.IGNORECASE)


_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])|\n+")


def cut(text: str, options: tuple[str, ...] = ("Yes", "No")) -> tuple[str, list[str]]:
    """`text` without the sentences that speak to whoever labels it, and those sentences.

    A cry of a word or two before such a sentence goes with it. A list of words, not a proof: what it misses and what it
    takes wrongly is measured by `palate annotate attack`.
    """
    lines, taken, speaks = [], [], _to_the_reader(options)
    for line in text.split("\n"):
        sentences = [sentence for sentence in _SENTENCE.split(line) if sentence]
        bad = [_MACHINE in sentence or bool(speaks.search(_unspaced(sentence))) for sentence in sentences]
        for place in range(len(bad) - 1, 0, -1):
            before = sentences[place - 1]
            bad[place - 1] |= bad[place] and before.endswith("!") and len(before.split()) <= _CRY
        taken += [sentence for sentence, gone in zip(sentences, bad, strict=True) if gone]
        kept = " ".join(sentence for sentence, gone in zip(sentences, bad, strict=True) if not gone)
        lines.append(kept if any(bad) else line)
    return "\n".join(line for line in lines if line.strip()), taken


_CRY = 2  # words
_SPACED = re.compile(r"\b(?:\w {1,2}){3,}\w\b")


def _unspaced(sentence: str) -> str:
    return _SPACED.sub(lambda match: re.sub(r"(?<=\w) (?=\w)", "", match.group(0)), sentence)
