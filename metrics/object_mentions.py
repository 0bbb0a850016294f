"""`mentioned_objects`: which objects of a table a caption mentions, under any of their names."""

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Any

from attnscope.metrics.errors import MetricError

__all__ = [
    "Synonyms",
    "annotated_objects",
    "caption_words",
    "mentioned_objects",
    "qualified_names",
    "read_synonyms",
]

Synonyms = Mapping[str, str]
"""The object that each name stands for, names in lower case and of one or more words.

A name that stands for the empty text is no object, though words of it alone may be one: `home
plate` keeps `plate` from being found.
"""

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_PLURALS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("men", "man"))
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "people": "person",
    "teeth": "tooth",
}
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
_CREATURES = (*_ANIMALS, "animal", "cub")


def read_synonyms(lines: Iterable[str]) -> dict[str, str]:
    """Return the table of names from its text: an object a line, its names split by commas.

    The first name of a line is the object. A line that begins with a comma lists phrases that are
    no object. This is the format of the public table for COCO.

    Raises:
        MetricError: A name stands for two objects, or there is none at all.

    Example:
        >>> read_synonyms(["dog, puppy", "hot dog", ", home plate"])
        {'dog': 'dog', 'puppy': 'dog', 'hot dog': 'hot dog', 'home plate': ''}
    """
    table: dict[str, str] = {}
    for line in filter(str.strip, lines):
        names = [spelled(name) for name in line.split(",")]
        for name in filter(None, names):
            if table.setdefault(name, names[0]) != names[0]:
                raise MetricError(
                    f"{name!r} stands for {table[name]!r} and for {names[0]!r}; "
                    "a name needs one object"
                )
    if not table:
        raise MetricError("no synonyms: give one line per object, its names split by commas")
    return table


def qualified_names(synonyms: Synonyms) -> dict[str, str]:
    """Return a table with the compounds that CHAIR's public scoring treats as one word.

    `baby bear` is a bear and no baby (so for `adult` and for other animals), a `passenger train`
    no passenger, a `toilet seat` no seat, and neither `home plate` nor `train track` any object.

    Example:
        >>> table = qualified_names({"bear": "bear", "baby": "person"})
        >>> mentioned_objects("A baby bear and a baby", table)
        ('bear', 'person')
    """
    compounds = {
        f"{qualifier} {animal}": synonyms.get(animal, "")
        for qualifier in ("baby", "adult")
        for animal in _CREATURES
    }
    for vehicle in ("jet", "train"):
        compounds[f"passenger {vehicle}"] = synonyms.get(vehicle, "")
    compounds["toilet seat"] = synonyms.get("toilet", "")
    return compounds | {"home plate": "", "train track": ""} | dict(synonyms)


def caption_words(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation.

    Example:
        >>> caption_words("A T-shirt, and the dog's ball.")
        ['a', 't-shirt', 'and', 'the', "dog's", 'ball']
    """
    return _WORD.findall(caption.lower())


def spelled(name: str) -> str:
    """Return a name as captions are read: its words in lower case, one blank between them."""
    return " ".join(caption_words(name))


def mentioned_objects(caption: str, synonyms: Synonyms) -> tuple[str, ...]:
    """Return the objects that a caption mentions, in order, one entry for each mention.

    From left to right the longest name of the table is taken, each of its words as it stands or
    from a plural, so that a hot dog is no dog. Words outside the table are no objects.

    Args:
        caption: Any text; an empty one mentions nothing.
        synonyms: The object that each name stands for.

    Reference: Rohrbach et al. 2018, arXiv:1809.02156, section 2. The plural rules and the longest
        match are our reading; public scoring lemmatizes and knows listed pairs of words.

    Example:
        >>> table = {"dog": "dog", "puppy": "dog", "hot dog": "hot dog", "person": "person"}
        >>> mentioned_objects("Two puppies and some people eat hot dogs.", table)
        ('dog', 'person', 'hot dog')
    """
    words, longest = caption_words(caption), max((len(n.split()) for n in synonyms), default=0)
    found, start = [], 0
    while start < len(words):
        for length in range(min(longest, len(words) - start), 0, -1):
            name = _known_name(words[start : start + length], synonyms)
            if name is not None:
                found.append(synonyms[name])
                start += length
                break
        else:
            start += 1
    return tuple(filter(None, found))


def _known_name(words: list[str], synonyms: Synonyms) -> str | None:
    """Return the name of the table that some words spell, exactly or in a plural."""
    spelled = map(" ".join, product(*(_singulars(word) for word in words)))
    return next((name for name in spelled if name in synonyms), None)


def _singulars(word: str) -> list[str]:
    """Return a word and what it may be the plural or the possessive of."""
    word = re.sub(r"['\u2019]s$", "", word)
    stems = [
        word[: -len(ending)] + singular
        for ending, singular in _PLURALS
        if word.endswith(ending) and len(word) > len(ending) + 1
    ]
    return [word, *([_IRREGULAR[word]] if word in _IRREGULAR else []), *stems]


def annotated_objects(
    instances: Mapping[str, Any], synonyms: Synonyms | None = None
) -> dict[int, frozenset[str]]:
    """Return the objects of each image from COCO's instance annotations, by image id.

    Args:
        instances: The content of an instances file: `images`, `annotations` and `categories`.
        synonyms: The object that each category stands for; by default the category itself.

    Raises:
        MetricError: These are no instance annotations, or a category is not in the table.

    Example:
        >>> annotated_objects({
        ...     "images": [{"id": 7}, {"id": 8}],
        ...     "annotations": [{"image_id": 7, "category_id": 1}],
        ...     "categories": [{"id": 1, "name": "dog"}],
        ... })
        {7: frozenset({'dog'}), 8: frozenset()}
    """
    missing = {"images", "annotations", "categories"} - set(instances)
    if missing:
        raise MetricError(
            f"instance annotations need {sorted(missing)}; there is {sorted(instances)}"
        )
    names = {category["id"]: category["name"] for category in instances["categories"]}
    objects: dict[int, set[str]] = {image["id"]: set() for image in instances["images"]}
    for annotation in instances["annotations"]:
        name = names[annotation["category_id"]]
        objects.setdefault(annotation["image_id"], set()).add(name)
    return {image: known_objects(found, synonyms) for image, found in objects.items()}


def known_objects(names: Collection[str], synonyms: Synonyms | None) -> frozenset[str]:
    """Return the objects that the names of an image's truth stand for.

    Raises:
        MetricError: A name is not in the table, so that no caption could ever mention it.
    """
    if synonyms is None:
        return frozenset(names)
    unknown = sorted(name for name in names if spelled(name) not in synonyms)
    if unknown:
        raise MetricError(f"no synonyms for {unknown}; the table has {len(synonyms)} names")
    return frozenset(filter(None, (synonyms[spelled(name)] for name in names)))
