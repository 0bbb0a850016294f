import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = ("capture", "demo", "hallucination", "measure", "metrics", "report", "show")


def test_help_lists_every_command(run):
    result = run("--help")
    assert result.exit_code == 0
    assert all(f" {command} " in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.output


def test_version_is_that_of_the_package(run):
    assert run("--version").output.strip() == f"attnscope {version('attnscope')}"


def test_an_unknown_command_ends_with_code_two(run):
    result = run("frobnicate")
    assert result.exit_code == 2
    assert "frobnicate" in result.output


def test_importing_the_command_line_loads_no_heavy_library():
    heavy = "{'torch', 'transformers', 'pandas', 'plotly', 'matplotlib', 'streamlit'}"
    code = f"import sys, attnscope.app.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
