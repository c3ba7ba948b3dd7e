import pytest

from palate.errors import InputError
from palate.project.config import LLMSection, load_config
from palate.project.project import Project, engine_of

GOOD = "data: {items: items.csv, events: events.csv}\n"


def config(tmp_path, text, **environment):
    (tmp_path / "palate.yaml").write_text(text)
    return load_config(tmp_path, environment)


def test_the_environment_overrides(tmp_path):
    found = config(tmp_path, GOOD, PALATE__ANNOTATE__ITEMS="7", PALATE__INTERESTS__BRANCHING="[3, 2]")
    assert found.annotate.items == 7
    assert found.interests.branching == (3, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "anotate: {items: 3}\n", ["anotate", "Did you mean 'annotate'?"]),
        (GOOD + "annotate: {item: 3}\n", ["annotate.item", "Did you mean 'items'?"]),
        (GOOD + "annotate: {items: many}\n", ["annotate.items", "many"]),
        (GOOD + "llm: {engine: magic}\n", ["llm.engine", "magic"]),
        ("data: {items: items.csv}\n", ["name items and events"]),
        ("data: [unclosed\n", ["line 2", "not valid YAML"]),
        ("just words\n", ["mapping"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        config(tmp_path, text)
    assert caught.value.exit_code == 2
    for word in [*words, "palate.yaml"]:
        assert word in str(caught.value)


def test_a_folder_without_a_project_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="not a Palate project") as caught:
        load_config(tmp_path)
    assert "palate init" in str(caught.value)


def test_the_policy_of_slates_is_one_section(tmp_path):
    text = GOOD + "serving: {sources: {sequence: 0.6, exploration: 0.4}, explore: {temperature: 0.5, refresh: 24}}\n"
    found = config(tmp_path, text).serving
    assert (found.sources["exploration"], found.explore.temperature, found.explore.refresh) == (0.4, 0.5, 24)
    with pytest.raises(InputError, match=r"serving\.explore\.temperature"):
        config(tmp_path, GOOD + "serving: {explore: {temperature: -1}}\n")


def test_drafts_are_for_local_models_and_what_a_way_cannot_do_is_said(tmp_path):
    server = LLMSection.model_validate({"engine": "openai", "decoding": {"mode": "strict"}})
    with pytest.raises(InputError, match="Only local models write with drafts") as raised:
        engine_of(server, tmp_path)
    assert "vLLM" in str(raised.value)
    for decoding in ({"mode": "relaxed"}, {"pool": "grouped"}):
        with pytest.raises(InputError, match=r"llama\.cpp writes with drafts in the mode strict only"):
            engine_of(LLMSection.model_validate({"engine": "llama", "decoding": decoding}), tmp_path)


def test_the_dtype_is_for_the_engine_that_has_one(tmp_path):
    with pytest.raises(InputError, match="Only the engine torch chooses its dtype"):
        engine_of(LLMSection.model_validate({"engine": "llama", "dtype": "bfloat16"}), tmp_path)


def test_grouped_drafts_alone_read_the_data(tmp_path):
    (tmp_path / "palate.yaml").write_text(GOOD + "llm: {engine: torch, decoding: {pool: global}}\n")
    assert Project(tmp_path).engine.name == "torch"
    (tmp_path / "palate.yaml").write_text(GOOD + "llm: {engine: torch, decoding: {pool: grouped}}\n")
    with pytest.raises(InputError):  # there are no files of items and events here
        Project(tmp_path).engine  # noqa: B018
