import pytest

PNG = b"\x89PNG\r\n\x1a\n"
TILES = ("--query-tile", "16x8", "--key-tile", "16x8")
IMAGE = ("neighborhood", "--shape", "256x256", "--window", "80", *TILES)


def rows(text):
    lines = [line.rsplit(maxsplit=2) for line in text.splitlines()]
    return {words[0].strip(): words[1:] for words in lines if len(words) == 3}


def test_a_stride_is_held_against_the_best_one(run):
    result = run(*IMAGE)
    assert result.exit_code == 0, result.output
    assert "Windows of 80x80 in 256x256, tiles of 16x8 queries by 16x8 keys" in result.stdout
    told = rows(result.stdout)
    assert told["stride"] == ["1x1", "16x16"]
    assert told["computed tiles"] == ["34,884", "25,600"]
    assert told["fewer tiles than dense"] == ["7.515x", "10.240x"]
    assert told["fewer operations than dense"] == ["10.240x", "10.240x"]
    assert told["needs no mask"] == ["no", "yes"]
    assert told["in part (masked)"][1] == "0"


def test_the_future_of_the_first_axis_is_hidden(run):
    words = ("--shape", "8x4", "--window", "8x4", "--query-tile", "1x4", "--key-tile", "1x4")
    told = rows(run("neighborhood", *words, "--causal").stdout)
    assert told["computed tiles"][0] == "36"
    assert told["in full"][0] == "36"


def test_a_picture_is_drawn_and_not_overwritten(run, tmp_path):
    path = tmp_path / "tiles.png"
    words = ("--shape", "64", "--window", "8", "--query-tile", "4", "--key-tile", "4")
    result = run("neighborhood", *words, "--figure", path)
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(PNG)
    assert str(path) in result.stdout
    again = run("neighborhood", *words, "--figure", path)
    assert again.exit_code == 2
    assert again.stderr == f"error: {path} exists; --force overwrites it\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stride", "100"), "stride 100 does not fit a window of 80"),
        (("--stride", "4y4"), "--stride is '4y4'; it takes positive numbers, as in 16x8"),
        (("--dilation", "0"), "--dilation is '0'; it takes positive numbers"),
        (("--dilation", "4"), "a window of 80 with dilation 4 spans 320 positions"),
        (("--stride", "2x2x2"), "has 3 numbers; the grid has 2 axes"),
        (("--key-tile", "4x4x4"), "a key tile of (4, 4, 4) does not fit"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(run, words, message):
    result = run(*IMAGE, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
