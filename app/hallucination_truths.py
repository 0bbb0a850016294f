"""What is in pictures: COCO's annotations, and the names that each object goes by."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnscope.app.failures import CommandError
from attnscope.app.pictured_items import PicturedItem
from attnscope.metrics import annotated_objects, chair, qualified_names, read_synonyms
from attnscope.metrics.object_mentions import caption_words

__all__ = ["names_of", "read_annotations", "read_names"]


def read_names(file: Path) -> dict[str, str]:
    """Return the object that each name stands for, from a table of names.

    An object a line, its names split by commas; the compounds that CHAIR's public scoring treats as
    one word are added.

    Raises:
        MetricError: The table is empty, or a name stands for two objects.
    """
    return qualified_names(read_synonyms(file.read_text(encoding="utf-8").splitlines()))


def names_of(
    items: Sequence[PicturedItem], synonyms: Path | None, *, is_glimpse: bool
) -> dict[str, str]:
    """Return the object that each name stands for.

    By a table of names where there is one; else glimpse's own objects, or all that some picture
    holds, each under its own name.

    Raises:
        CommandError: A table is given and nothing is known of the pictures.
        MetricError: An object of a picture is not in the table: no caption could mention it.
    """
    known = [item.objects for item in items if item.objects is not None]
    if synonyms is not None:
        if not known:
            raise CommandError("--synonyms name objects, and none are known of these pictures")
        table = read_names(synonyms)
    elif is_glimpse:
        from attnscope.models.subjects.glimpse import OBJECTS

        table = {name: name for name in OBJECTS}
    else:
        table = {" ".join(caption_words(name)): name for name in sorted(set().union(*known))}
    if known:
        chair([""] * len(known), known, table)
    return table


def read_annotations(
    file: Path, synonyms: Mapping[str, str] | None = None
) -> dict[str, frozenset[str]]:
    """Return the objects of each picture by its file name, from COCO's instance annotations.

    Raises:
        CommandError: This is no JSON, or its images have no file names.
        MetricError: These are no instance annotations, or a category is not in the table of names.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise CommandError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CommandError(f"{file} holds no instance annotations: a JSON object is needed")
    objects = annotated_objects(content, synonyms)
    try:
        return {image["file_name"]: objects[image["id"]] for image in content["images"]}
    except KeyError as error:
        raise CommandError(f"an image of {file} has no {error}") from error
