"""Steps that use knowledge: the tree and its transitions, models against each other, what the knowledge is worth."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import FloatArray
from palate.data.splits import split_global_time
from palate.errors import InputError
from palate.experiments.compare import BASELINES, choose_on_validation, compare
from palate.experiments.controls import RAW, Arm
from palate.experiments.worth import worth
from palate.interests.name_choice import choose_names
from palate.interests.names import keep_titles, name_nodes
from palate.interests.quality import balance, coherence
from palate.interests.rebuild import rebuild
from palate.interests.table import names_digest
from palate.interests.transitions import ask_transitions, spread
from palate.interests.tree import InterestTree, build_tree, load_tree, save_tree, tree_weights
from palate.knowledge.keywords import english_stop_words, item_words
from palate.knowledge.matrix import filled, label_matrix
from palate.knowledge.store import write_parquet
from palate.models.checkpoint import FileCheckpoint
from palate.models.registry import make as make_model
from palate.project.config import InterestsSection
from palate.project.interest_files import imported_table
from palate.project.item_vectors import tree_vectors
from palate.project.knowledge_steps import KnowledgeSteps, read_kind
from palate.project.steps import Artefact, Detail

# Small grids, searched on validation. What is named in palate.yaml (models) is taken as it stands.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "popularity": [{}],
    "markov": [{}, {"window": 3, "recent": 10, "decay": 0.8}],
    "item-knn": [{"neighbours": 200}, {"neighbours": 200, "recent": 5}],
    "ease": [{"ridge": 200.0}, {"ridge": 1000.0, "recent": 5}],
    "sasrec": [{}],
}


class ModelSteps:
    """Each method is one step; its inputs are what its result depends on."""

    def __init__(self, knowledge: KnowledgeSteps) -> None:
        self.asking = knowledge
        self.project, self.steps, self.bars = knowledge.project, knowledge.steps, knowledge.bars

    def interests(self, vectors: Artefact, recorded: Artefact | None) -> Artefact:
        """`tree.json`: items clustered by vector, balanced by training traffic, named by keywords.

        Names are drawn from texts, categories, people's tags and, where there are any, a model's recorded tags.
        """
        project, config = self.project, self.project.config.interests

        def make(folder: Path) -> Detail:
            traffic = project.split.train.item_counts.astype(np.float64)
            joined = tree_vectors(project, np.load(vectors.folder / "vectors.npy"))
            tree, moved = self._grown(joined.vectors, traffic)
            documents = self._documents(recorded)
            named = name_nodes(tree, documents, english_stop_words() | self._everywhere(documents))
            if moved and not moved["moved"]["cut afresh"]:
                named = keep_titles(named, tree)
            save_tree(named, folder / "tree.json")
            made_of = {"config": _cut_by(config), "items": project.dataset.item_ids}
            (folder / "made_of.json").write_text(json.dumps(made_of))
            weights = tree_weights(joined.vectors, traffic, config)
            levels = [named.node_of_items(level) for level in range(1, named.depth + 1)]
            even = {f"level {number}": balance(weights, row) for number, row in enumerate(levels, start=1)}
            close = {f"level {number}": coherence(joined.vectors, row) for number, row in enumerate(levels, start=1)}
            facts = {"vectors": joined.as_dict(), "balance": even, "coherence": close, **moved}
            return {"nodes": len(named.nodes), "levels": named.depth, **facts}

        inputs = {
            "vectors": vectors.key,
            "config": {**_cut_by(config), "keep": config.keep},
            "split": self._split_facts(),
            "recorded": recorded and recorded.key,
        }
        return self.steps.run("interests", inputs, make)

    def _grown(self, vectors: FloatArray, traffic: npt.NDArray[np.float64]) -> tuple[InterestTree, Detail]:
        """The tree before brought up to date, and what moved; a tree cut afresh where there is none of this shape."""
        config, before = self.project.config.interests, self.steps.latest("interests")
        made_of = None if before is None or not config.keep else before.folder / "made_of.json"
        if before is None or made_of is None or not made_of.is_file():
            return build_tree(vectors, traffic, config), {}
        facts = json.loads(made_of.read_text())
        if facts["config"] != _cut_by(config):
            return build_tree(vectors, traffic, config), {}
        number = {item_id: place for place, item_id in enumerate(facts["items"])}
        was = np.array([number.get(item_id, -1) for item_id in self.project.dataset.item_ids], dtype=np.int32)
        tree, moved = rebuild(load_tree(before.folder / "tree.json"), vectors, traffic, was, config)
        return tree, {"moved": moved.as_dict()}

    def names(self, interests: Artefact, vectors: Artefact, recorded: Artefact | None) -> Artefact:
        """`tree.json` with the names that held-out items are best told apart by, and `names.json`: how well.

        The model's titles are judged beside the keywords; the encoder that judges made no names.
        """
        project = self.project

        def make(folder: Path) -> Detail:
            tree, documents = load_tree(interests.folder / "tree.json"), self._documents(recorded)
            stop_words = english_stop_words() | self._everywhere(documents)
            titles = [title or item_id for title, item_id in project.dataset.items.select("title", "item_id").rows()]
            texts, llm = np.load(vectors.folder / "vectors.npy"), self.asking.llm("titles")
            found = choose_names(tree, documents, stop_words, titles, texts, project.encoder, llm)
            save_tree(found.tree, folder / "tree.json")
            judged = [asdict(each) for each in found.judged]
            (folder / "names.json").write_text(json.dumps({"judged": judged, "outcomes": found.outcomes}))
            return {"chosen": found.chosen, **vars(llm.spent)}

        inputs = {
            "interests": interests.key,
            "vectors": vectors.key,
            "recorded": recorded and recorded.key,
            "model": project.engine.model,
        }
        return self.steps.run("names", inputs, make)

    def transitions(self, interests: Artefact) -> Artefact:
        """`transitions.parquet`: the next interest for every pair of nodes of the chosen level.

        Where a batch service's answers about these very interests were imported, they are it; else the LLM is asked.
        """
        level = self.project.config.interests.level
        imported = imported_table(self.project)

        def make(folder: Path) -> Detail:
            tree = load_tree(interests.folder / "tree.json")
            if level > tree.depth:
                raise InputError(
                    "The tree has no such level.",
                    where="palate.yaml, field interests.level",
                    got=level,
                    allowed=f"1 to {tree.depth}",
                )
            nodes = tree.at_level(level)
            if imported is not None and imported.about == names_digest([node.title for node in nodes]):
                table = imported.as_rows([node.node for node in nodes])
                write_parquet(table, folder / "transitions.parquet")
                return {"imported": len(imported.next), **spread(table, len(nodes))}
            llm = self.asking.llm("transitions")
            table = ask_transitions(tree, level, llm)
            write_parquet(table, folder / "transitions.parquet")
            return {**vars(llm.spent), **spread(table, len(nodes))}

        inputs: dict[str, Any] = {"interests": interests.key, "level": level, "model": self.project.engine.model}
        if imported is not None:
            inputs["imported"] = imported.digest
        return self.steps.run("transitions", inputs, make)

    def compare(self) -> Artefact:
        """`comparison.json`, and of SASRec `encoder.onnx` and `item_vectors.npy`: what is served."""
        project = self.project
        fixed = project.config.models

        def make(folder: Path) -> Detail:
            checkpoint = FileCheckpoint(project.state / "checkpoints" / "sasrec.safetensors")
            models, seconds, chosen = [], {}, {}
            overall = self.bars.bar("models", "fitted")
            for done, name in enumerate((*BASELINES, "sasrec")):
                overall(done, len(BASELINES) + 1)
                grid = [fixed[name]] if fixed.get(name) else GRIDS[name]
                parts = {"checkpoint": checkpoint, "on_progress": self._epochs()} if name == "sasrec" else {}
                choice = choose_on_validation(name, grid, project.split, **parts)
                models.append(choice.model)
                seconds[name], chosen[name] = choice.fit_seconds, choice.params
            overall(len(models), len(models))
            found = compare(models, project.split, fitted=seconds)
            sasrec: Any = models[-1]
            sasrec.export_onnx(folder / "encoder.onnx")
            np.save(folder / "item_vectors.npy", sasrec.item_vectors)
            (folder / "comparison.json").write_text(json.dumps(found.as_dict()))
            (folder / "length.json").write_text(json.dumps(sasrec.config.length))
            return {"best": max(found.results, key=lambda row: row.means["NDCG@10"].mean).name, "params": chosen}

        return self.steps.run("models", {"split": self._split_facts(), "fixed": fixed, "grids": GRIDS}, make)

    def worth(self, vectors: Artefact, kinds: dict[str, list[Path]], tokens: dict[str, int | None]) -> Artefact:
        """`worth.json`: EASE with each source of labels, and with the controls in their place.

        `kinds` names label files, the first of which wins where several speak of one item.
        """
        project = self.project

        def make(folder: Path) -> Detail:
            held = project.config.data
            limit = project.config.controls.queries
            split = split_global_time(project.dataset, held.validation, held.test, max_queries=limit)
            model = make_model("ease", GRIDS["ease"][-1])
            model.fit(split.train)
            arms = [Arm(name, item=self._labels(paths), tokens=tokens.get(name)) for name, paths in kinds.items()]
            raw = Arm(RAW, item=np.load(vectors.folder / "vectors.npy"))
            found = worth(model, split.validation, split.test, arms, raw)
            (folder / "worth.json").write_text(json.dumps(found.rows(), default=vars))
            return {"kinds": len(arms), "queries": len(split.test.queries)}

        inputs = {
            "split": self._split_facts(),
            "vectors": vectors.key,
            "kinds": {name: [str(Path(p.parent.name, p.name)) for p in paths] for name, paths in kinds.items()},
            "config": project.config.controls.model_dump(),
        }
        return self.steps.run("controls", inputs, make)

    def _labels(self, paths: list[Path]) -> FloatArray:
        """Labels [n_items, n_attributes], gaps filled by later files, then by the attribute's mean."""
        names = [attribute.name for attribute in self.project.attributes]
        matrix = filled(*[label_matrix(pl.read_parquet(path), self.project.dataset.item_ids, names) for path in paths])
        return filled(matrix, np.broadcast_to(np.nanmean(matrix, axis=0), matrix.shape))

    def _documents(self, recorded: Artefact | None) -> list[list[str]]:
        tags = self.project.tags
        said = dict(read_kind(recorded, "tag").group_by("entity").agg(pl.col("text").str.join(" ")).iter_rows())
        lower = None if tags is None else tags.with_columns(pl.col("tag").str.to_lowercase())
        return item_words(self.project.dataset.items, lower, said)

    def _everywhere(self, documents: list[list[str]]) -> set[str]:
        """Words of texts that over a third of the items have tell nothing apart; categories were chosen and stay."""
        counts = Counter(word for document in documents for word in set(document))
        chosen = {c.lower() for row in self.project.dataset.items["categories"] for c in row if row is not None}
        return {word for word, count in counts.items() if count > max(50, len(documents) / 3)} - chosen

    def _epochs(self) -> Any:
        bar = self.bars.bar("sasrec", "training steps at most")
        return lambda name, done, total, figures: bar(done, total)

    def _split_facts(self) -> dict[str, Any]:
        data = self.project.config.data
        return {"data": self.project.data_key, "validation": data.validation, "test": data.test}


def _cut_by(config: InterestsSection) -> Detail:
    """What decides where the tree is cut."""
    return config.model_dump(mode="json", exclude={"level", "titles", "keep"})


def tree_of(interests: Artefact) -> InterestTree:
    return load_tree(interests.folder / "tree.json")
