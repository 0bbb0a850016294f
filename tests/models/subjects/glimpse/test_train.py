"""Training: it learns, stops and resumes without a trace, and writes weights that load."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from attnscope.models.subjects.glimpse import load_subject, sample_scenes
from attnscope.models.subjects.glimpse.patches import NOTHING, patch_labels
from attnscope.models.subjects.glimpse.scenes import OBJECTS
from attnscope.models.subjects.glimpse.train import (
    Settings,
    Stage,
    export_weights,
    resume_run,
    save_checkpoint,
    start_run,
    train,
)

TINY = Settings(
    tower=Stage(steps=3, batch=2, rate=4e-3),
    decoder=Stage(steps=3, batch=2, rate=4e-3),
    tower_layers=1,
    layers=1,
    hidden=16,
    heads=2,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep tiny steps from waiting for threads that others need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_thirty_steps_of_each_stage_lower_its_loss() -> None:
    longer = replace(
        TINY, tower=replace(TINY.tower, steps=30), decoder=replace(TINY.decoder, steps=30)
    )
    losses = list(train(start_run(longer), longer))
    assert len(losses) == 60
    for stage in (losses[:30], losses[30:]):
        assert sum(stage[-3:]) < 0.95 * sum(stage[:3])


@pytest.mark.parametrize("steps", [2, 4])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path, steps: int) -> None:
    whole = start_run(TINY)
    list(train(whole, TINY))
    broken = start_run(TINY)
    list(islice(train(broken, TINY), steps))
    save_checkpoint(broken, tmp_path / "state.pt")
    resumed = resume_run(TINY, tmp_path / "state.pt")
    assert (resumed.stage, resumed.step) == (broken.stage, broken.step)
    list(train(resumed, TINY))
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weight)


def test_the_decoder_learns_with_a_frozen_tower() -> None:
    run = start_run(TINY)
    list(islice(train(run, TINY), 4))
    assert run.stage == "decoder"
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    list(train(run, TINY))
    changed = {
        name.split(".")[1] if name.startswith("model.") else name.split(".")[0]
        for name, weight in run.model.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert changed == {"language_model", "multi_modal_projector", "lm_head"}


def test_exported_weights_load_and_are_the_rounded_ones(tmp_path: Path) -> None:
    run = start_run(TINY)
    export_weights(run.model, tmp_path / "weights")
    assert {path.suffix for path in (tmp_path / "weights").iterdir()} <= {
        ".json",
        ".jinja",
        ".safetensors",
    }
    model, _ = load_subject(tmp_path / "weights")
    rounded = {name: weight.bfloat16().float() for name, weight in run.model.state_dict().items()}
    assert not model.training
    assert model.generation_config.max_new_tokens == 64
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, rounded[name]), name


def test_patch_labels_put_each_object_on_the_patch_of_its_centre() -> None:
    scenes = sample_scenes(20, 3)
    labels = patch_labels(scenes)
    for scene, objects, holds in zip(scenes, labels.objects, labels.holds_centre, strict=True):
        grid = objects.reshape(8, 8)
        for thing in scene.objects:
            here = int(grid[int(thing.y // 8), int(thing.x // 8)])
            assert here != NOTHING
            # Where two overlap on a patch it bears the name of the one that reaches further in.
            assert OBJECTS[here] in {other.name for other in scene.objects}
        assert int(holds.sum()) <= len(scene.objects)
        assert int((objects == NOTHING).sum()) > 20
