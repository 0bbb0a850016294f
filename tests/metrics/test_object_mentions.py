"""Names of objects in captions, and COCO's own files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.metrics import (
    MetricError,
    annotated_objects,
    mentioned_objects,
    qualified_names,
    read_synonyms,
)

TABLE = read_synonyms(
    [
        "person, child, man, woman, people\n",
        "dog, puppy\n",
        "\n",
        "hot dog\n",
        "knife, pocketknife\n",
        "wine glass,glass\n",
        "cell phone, mobile  phone\n",
        "bear\n",
        "skis, ski\n",
        "train\n",
        ", home plate, train track\n",
    ]
)


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("", ()),
        ("Nothing that is listed.", ()),
        ("A dog.", ("dog",)),
        ("DOGS and Dog's puppies", ("dog", "dog", "dog")),
        ("hot dogs", ("hot dog",)),
        ("a hot, dry dog", ("dog",)),
        ("Two women, three men and some children", ("person", "person", "person")),
        ("knives beside wine glasses, one glass", ("knife", "wine glass", "wine glass")),
        ("mobile phones", ("cell phone",)),
        ("a train beside the train track", ("train",)),
        ("a pair of skis", ("skis",)),
        ("a man-made dog_house", ("dog",)),
    ],
)
def test_names_are_found(caption: str, objects: tuple[str, ...]) -> None:
    assert mentioned_objects(caption, TABLE) == objects


@given(st.lists(st.sampled_from([*TABLE, "zebra", "of", "the"]), max_size=8))
def test_words_between_commas_do_not_change_what_names_stand_for(names: list[str]) -> None:
    expected = tuple(TABLE[name] for name in names if TABLE.get(name))
    assert mentioned_objects(" xx ".join(names), TABLE) == expected
    assert mentioned_objects(" XX ".join(names).upper(), TABLE) == expected


def test_qualified_animals_are_no_people() -> None:
    table = qualified_names(TABLE | {"baby": "person", "adult": "person", "passenger": "person"})
    assert mentioned_objects("an adult bear, a baby giraffe and a baby", table) == (
        "bear",
        "person",
    )
    assert mentioned_objects("a passenger train", table) == ("train",)
    assert qualified_names({"baby bear": "toy"})["baby bear"] == "toy"


def test_a_name_of_two_objects_and_an_empty_table_are_refused() -> None:
    with pytest.raises(MetricError, match="'bike' stands for 'bicycle' and for 'motorcycle'"):
        read_synonyms(["bicycle, bike", "motorcycle, bike"])
    with pytest.raises(MetricError, match="no synonyms"):
        read_synonyms(["", " "])


def test_objects_of_annotated_images() -> None:
    instances = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"image_id": 1, "category_id": 5},
            {"image_id": 1, "category_id": 5},
            {"image_id": 1, "category_id": 6},
        ],
        "categories": [{"id": 5, "name": "puppy"}, {"id": 6, "name": "hot dog"}],
    }
    assert annotated_objects(instances) == {1: {"puppy", "hot dog"}, 2: frozenset()}
    assert annotated_objects(instances, TABLE)[1] == {"dog", "hot dog"}
    with pytest.raises(MetricError, match=r"no synonyms for \['hot dog'\]; the table has 1 names"):
        annotated_objects(instances, {"puppy": "dog"})
    with pytest.raises(MetricError, match=r"need \['annotations', 'categories'\]; there is \['i"):
        annotated_objects({"images": []})
