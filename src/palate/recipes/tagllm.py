"""TagLLM: fine-grained tags guided by a User Interest Handbook (Chen et al. 2026, arXiv 2603.21481).

Claim: a language model that walks a handbook of what people care about gives tags that are less redundant, more
specific and say more of future clicks than unguided ones, a small model tuned on them is as good, and new items gain.
The paper gives no handbook, prompts or data: this is a reading of its abstract.

Baselines, at equal numbers of tags an item: categories, TF-IDF terms, the handbook's values nearest by sentence vectors
(guidance without a language model), unguided tags; for cold items also whole texts by TF-IDF and by sentence vectors.
Controls: every source's tags on other items (permuted) and drawn at random from its vocabulary (noise).

Items measured teach nobody, cold items' events are in no history and no training, people's tags are in no prompt.
Settings: `palate.experiments.tag_study.TagSettings`.
"""

from __future__ import annotations

from typing import Any

from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.experiments.study import Chart, Report, ReportTable, Study
from palate.experiments.tag_measures import ColdItems, TagSet, form, gram, precision, sharing
from palate.experiments.tag_study import TagSettings, TagStudy
from palate.knowledge.annotate import item_text
from palate.knowledge.clicks import holdout_pairs
from palate.knowledge.terms import item_documents, mine_terms

VECTORS, TFIDF = "sentence vectors", "TF-IDF of texts"
PLAIN_SOURCES = ("categories", "tf-idf terms", "near handbook values")
LLM_SOURCES = ("unguided LLM", "guided LLM", "tuned LLM", "recorded model", "student")
_N = 10
Row = dict[str, Any]


def tagllm(study: Study) -> Report:
    """The comparison; see the module for what is compared."""
    work = TagStudy(study, TagSettings.of(study))
    sources = work.sources()
    controlled = _with_controls(sources)
    shared, cold = _sharing(work, controlled), _cold(work, sources)
    forms = [{"source": name, **form(tags), "tokens": work.spent.get(name)} for name, tags in sources.items()]
    tables = [
        ReportTable("Handbook", _handbook(work), "information: bits that sharing tells of clicked or matched; q: FDR"),
        ReportTable("Form of the tags", forms),
        ReportTable("Future clicks that share a tag with the history", shared, "matched: as popular, same category"),
        ReportTable("Precision on people's tags", _precision(work, controlled), "a missing tag is no 'no'"),
        ReportTable(f"Cold items, NDCG@{_N}", cold, "added: paired difference to the same signal without the tags"),
    ]
    curve = [{"step": look.step, "loss": look.loss, "side": "validation"} for look in work.looks]
    charts = [Chart("Clicks nearer in tags than matched items", "intervals", shared, "source", "nearer")]
    if curve:
        charts.append(Chart("Fine-tuning", "lines", curve, "step", "loss", "side"))
    verdict = [*_on_sharing(shared), *_on_cold(cold), _on_tokens(work)]
    notes = [*work.notes, *work.handbook.notes, f"{len(work.items)} items, {int(work.cold.sum())} of them cold."]
    return Report("TagLLM", verdict, [t for t in tables if t.rows], charts if shared else charts[1:], notes)


def _with_controls(sources: dict[str, TagSet]) -> dict[str, TagSet]:
    """Each LLM source's tags on other items and at random from its vocabulary."""
    own = [found for name, found in sources.items() if name in LLM_SOURCES]
    return sources | {control.source: control for found in own for control in (found.permuted(), found.noise())}


def _handbook(work: TagStudy) -> list[Row]:
    return [
        {"category": s.category, "tested": s.tested, "kept": len(s.dimensions), "dimension": d.name}
        | {"values": ", ".join(d.values[:6]), "information": d.information, "lift": d.lift, "q": d.q, "n": d.n}
        for s in work.handbook.sections
        for d in s.dimensions[:5]
    ]


def _sharing(work: TagStudy, sources: dict[str, TagSet]) -> list[Row]:
    pairs = holdout_pairs(work.dataset, work.split.test, work.items, train=work.split.train)
    if not len(pairs):
        work.notes.append("No held-out click has a history among the measured items: sharing cannot be measured.")
        return []
    pairs = pairs.part(work.sample(len(pairs)))
    found = {name: vars(sharing(tags, pairs)) for name, tags in sources.items()}
    return [{"source": name, "pairs": len(pairs)} | _flat(figures) for name, figures in found.items()]


def _precision(work: TagStudy, sources: dict[str, TagSet]) -> list[Row]:
    if not work.gold:
        work.notes.append("Nobody's tags: precision cannot be measured.")
        return []
    rows = [(name, precision(tags, work.gold, work.study.encoder)) for name, tags in sources.items()]
    return [{"source": name, "items": len(work.gold)} | _flat(figures) for name, figures in rows]


def _cold(work: TagStudy, sources: dict[str, TagSet]) -> list[Row]:
    cold = ColdItems(work.split.validation, work.split.test, work.items, work.cold, _N)
    if not cold.test.queries or not cold.validation.queries:
        work.notes.append("No held-out click is on a cold item with a warm history: cold items cannot be measured.")
        return []
    texts = [item_text(work.dataset, num) for num in work.items.tolist()]
    words = mine_terms(item_documents(work.dataset, categories=False), 2, 0.5, 20_000).weighed()
    base = {VECTORS: gram(work.study.encoder.encode(texts)), TFIDF: gram(words[work.items])}
    tags = {name: found.gram() for name, found in sources.items()}
    controls = [found.permuted() for name, found in sources.items() if name in LLM_SOURCES]
    tags |= {control.source: control.gram() for control in controls}
    rows, users = [], cold.users
    judged = {name: cold.judge(signal) for name, signal in (base | tags).items()}
    for name, (_, gains, hits) in judged.items():
        against = {f"against {other}": paired_difference(gains, judged[other][1], users) for other in base}
        both = {"ndcg": bootstrap_mean(gains, users), "recall": bootstrap_mean(hits, users)}
        rows.append({"signal": name, "queries": len(gains), "weight": None} | _flat(both | against))
    for name, signal in tags.items():
        for beside, first in base.items():
            weight, gains, hits = cold.judge(first, signal)
            added = paired_difference(gains, judged[beside][1], users)
            both = {"ndcg": bootstrap_mean(gains, users), "recall": bootstrap_mean(hits, users), "added": added}
            rows.append({"signal": f"{beside} + {name}", "queries": len(gains), "weight": weight} | _flat(both))
    return rows


def _flat(figures: dict[str, Interval]) -> Row:
    ends = {"": "mean", "_low": "low", "_high": "high"}
    return {f"{name}{end}": getattr(i, which) for name, i in figures.items() for end, which in ends.items()}


def _on_sharing(rows: list[Row]) -> list[str]:
    found = {row["source"]: row for row in rows}
    without = max((found[name]["nearer"] for name in PLAIN_SOURCES if name in found), default=0.5)
    said = []
    for row in (found[name] for name in LLM_SOURCES if name in found):
        what = "say nothing of" if row["nearer_low"] <= 0.5 else "tell of"
        share = f"{row['nearer']:.3f} [{row['nearer_low']:.3f}, {row['nearer_high']:.3f}]"
        said.append(f"Tags of {row['source']} {what} future clicks: {share} are nearer (without an LLM {without:.3f}).")
    return said


def _on_cold(rows: list[Row]) -> list[str]:
    """Tags add what they add beyond tags on the wrong items: intervals over users do not know the luck of items."""
    found, said = {row["signal"]: row for row in rows}, []
    for beside in (VECTORS, TFIDF):
        wrong = (f"{beside} + {name}, permuted" for name in LLM_SOURCES)
        chance = max([0.0, *(found[name]["added"] for name in wrong if name in found)])
        for name in (name for name in LLM_SOURCES if f"{beside} + {name}" in found):
            row = found[f"{beside} + {name}"]
            what = "add to" if row["added_low"] > chance else "harm" if row["added_high"] < 0 else "add nothing to"
            share = f"{row['added']:+.4f} [{row['added_low']:+.4f}, {row['added_high']:+.4f}]"
            said.append(f"Cold items: tags of {name} {what} {beside}: NDCG@{_N} {share}, wrong tags {chance:+.4f}.")
    return sorted(said, key=lambda line: " add to " in line)


def _on_tokens(work: TagStudy) -> str:
    spent = ", ".join(f"{name} {tokens:,}" for name, tokens in work.spent.items())
    return f"Tokens for {len(work.items)} items: {spent or 'none'}; those of recorded answers are not recorded."
