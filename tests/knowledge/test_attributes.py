import numpy as np
import pytest

from palate.errors import InputError
from palate.knowledge.attributes import Attribute, load_attributes

GOOD = "name: funny\nquestion: Is this funny?\noptions: [Very, Somewhat, 'No']\n"
MULTI = "name: setting\nkind: multi\nquestion: Where does it play?\noptions: [Outer space, City]\n"


def test_attributes_are_read_from_every_file(tmp_path):
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "a.yaml").write_text("- name: sad\n  question: Is this sad?\n- name: calm\n  question: Is this calm?\n")
    assert [attribute.name for attribute in load_attributes(tmp_path)] == ["sad", "calm", "funny"]


def test_the_first_option_fits_best():
    probabilities = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    attribute = Attribute(name="funny", question="Is it?", options=("Very", "Somewhat", "No"))
    np.testing.assert_allclose(attribute.fit(probabilities), [1, 0.5, 0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: funny\n  question: bad indent\n", ["line 2", "not valid YAML"]),
        (GOOD + "guidence: oops\n", ["guidence", "Did you mean 'guidance'?", "a.yaml"]),
        (GOOD + "examples: [{item: A film, answer: Maybe}]\n", ["'Maybe'", "not an option", "Very, Somewhat, No"]),
        (GOOD.replace("Somewhat", "Very"), ["two options are the same"]),
        (GOOD.replace("Somewhat", "very "), ["two options are the same"]),
        (GOOD.replace("Somewhat", "' '"), ["an option is blank"]),
        (
            GOOD.replace("[Very, Somewhat, 'No']", "[Very]"),
            ["two options or more", "has 1", "(funny)", "field options"],
        ),
        (GOOD.replace("[Very, Somewhat, 'No']", "[Yes, No]"), ["quotation marks", "options.0"]),
        (MULTI + "examples: [{item: Alien, answer: 'City, Sea'}]\n", ["'Sea'", "not an option", "Outer space, City"]),
        (MULTI.replace("City", "outer-space"), ["makes no name of its own", "setting_outer_space"]),
        (MULTI.replace("City", "Ω"), ["makes no name of its own"]),
        (MULTI.replace("City", "'City, night'"), ["holds a comma"]),
        ("name: Not Good\nquestion: Is this?\n", ["field name"]),
        ("just text\n", ["mapping", "str"]),
        (GOOD + "---\n" + GOOD, ["not valid YAML"]),
        (f"- {GOOD.strip()}".replace("\n", "\n  ") + f"\n- {GOOD.strip()}".replace("\n", "\n  "), ["defined twice"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text.replace("\n  - ", "\n- "))
    with pytest.raises(InputError) as caught:
        load_attributes(tmp_path)
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)


def test_an_empty_folder_says_what_to_write(tmp_path):
    with pytest.raises(InputError, match="no attributes"):
        load_attributes(tmp_path)


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_attributes(tmp_path)


def test_a_change_in_wording_is_a_new_version():
    one = Attribute(name="funny", question="Is this funny?")
    assert one.version == Attribute(name="comic", question="Is this funny?", human_labels=("fun",)).version
    for change in ({"question": "Is it funny?"}, {"guidance": "Jokes count."}, {"edge_cases": ("Satire counts.",)}):
        assert Attribute(**{"name": "funny", "question": "Is this funny?", **change}).version != one.version


def test_several_options_may_hold_of_a_multi(tmp_path):
    (tmp_path / "a.yaml").write_text(MULTI + "examples: [{item: Alien, answer: Outer space}]\n")
    space, city = load_attributes(tmp_path)
    assert (space.name, city.name, space.options) == ("setting_outer_space", "setting_city", ("Yes", "No"))
    assert "Outer space" in space.question
    assert [part.examples[0].answer for part in (space, city)] == ["Yes", "No"]
