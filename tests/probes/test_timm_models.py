"""Models of timm from a folder, from safetensors alone, with pictures as input."""

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from attnscope import capture
from attnscope.probes import CaptureError, Subject, load
from attnscope.probes.adapters.timm_models import PictureProcessor, is_timm, load_timm


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=7).eval()
    save_for_hf(model, str(folder), safe_serialization=True)
    return model, folder


PICTURE = Image.new("RGB", (90, 60), (200, 30, 10))


def test_a_saved_model_comes_back_with_its_weights_and_its_own_pictures(saved):
    model, folder = saved
    subject = load_timm(str(folder), device="cpu")
    assert subject.name == str(folder)
    assert not subject.model.training
    stored, weights = subject.model.state_dict(), model.state_dict()
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
    trace = capture(subject, "", images=[PICTURE])
    assert trace.sequences["image"].segments.runs[-1].grid == (10, 10)  # 160 x 160, patches of 16


def test_the_safetensors_file_in_the_folder_and_another_type_of_weights(saved):
    _, folder = saved
    subject = load_timm(str(folder / "model.safetensors"), device="cpu", dtype="float64")
    assert next(subject.model.parameters()).dtype == torch.float64


def test_load_finds_out_that_a_folder_is_of_timm(saved):
    _, folder = saved
    assert isinstance(load(folder, device="cpu").processor, PictureProcessor)


@pytest.mark.parametrize(
    ("name", "expected"), [("timm/no_such_model", True), ("Qwen/Qwen2.5-0.5B", False), (".", False)]
)
def test_names_of_timm(name, expected):
    assert is_timm(name) is expected


def test_a_pickled_checkpoint_is_never_opened(saved, tmp_path):
    model, _ = saved
    save_for_hf(model, str(tmp_path), safe_serialization=False)
    with pytest.raises(CaptureError, match=r"no model\.safetensors, and nothing is ever unpickled"):
        load_timm(str(tmp_path))


def test_weights_that_do_not_fit_are_refused(saved, tmp_path):
    _, folder = saved
    for file in folder.iterdir():
        text = file.read_bytes()
        (tmp_path / file.name).write_bytes(text.replace(b'"test_vit"', b'"test_vit2"'))
    with pytest.raises(CaptureError, match="cannot be loaded by timm"):
        load_timm(str(tmp_path))


def test_a_model_that_is_nowhere_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CaptureError, match="'timm/no_such_model' cannot be loaded by timm"):
        load_timm("timm/no_such_model")


def test_a_picture_model_reads_no_words(saved):
    model, _ = saved
    subject = Subject(model, PictureProcessor(model))
    assert subject.processor(images=[PICTURE, PICTURE])["x"].shape == (2, 3, 160, 160)
    with pytest.raises(CaptureError, match="reads pictures alone"):
        capture(subject, "what is this?", images=[PICTURE])
    with pytest.raises(CaptureError, match="reads pictures alone"):
        subject.processor()
