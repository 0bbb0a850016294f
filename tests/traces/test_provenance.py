"""Provenance keeps its own copies."""

import pytest

from attnscope.traces import Provenance


def test_later_changes_of_the_mappings_do_not_reach_it():
    versions = {"torch": "2.13"}
    provenance = Provenance(versions=versions)
    versions["torch"] = "1.0"
    assert provenance.versions == {"torch": "2.13"}
    assert provenance == Provenance(versions={"torch": "2.13"})


def test_its_mappings_cannot_be_changed():
    with pytest.raises(TypeError):
        Provenance(notes={"seed": "1"}).notes["seed"] = "2"  # pyright: ignore[reportIndexIssue]
