"""The public door of the subject: sorted, complete and light."""

import subprocess
import sys

from attnscope.models.subjects import countdown


def test_importing_the_task_loads_no_model_library() -> None:
    code = (
        "import sys, attnscope.models.subjects.countdown;"
        "print(sorted({'transformers', 'tokenizers', 'typer'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_every_public_name_exists_in_order() -> None:
    assert sorted(countdown.__all__) == sorted(set(countdown.__all__))
    assert all(hasattr(countdown, name) for name in countdown.__all__)
