"""Record what verl hands around in a step with coupled credit, for the tests that run without it.

Run beside verl, as `run.sh` says; it writes `tests/credit/verl_batch.safetensors`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import samples
import small_run
from check_verl import COUPLED, NUMBERS, padded
from safetensors.torch import save_file

from attnscope.credit import REV, calibrate
from attnscope.credit.verl_trainer import verl_credit_trainer

TARGET = Path(__file__).parents[1] / "credit" / "verl_batch.safetensors"
FIELDS = (
    "advantages",
    "credit_global_fai",
    "credit_local_waad",
    "entropy",
    "input_ids",
    "old_log_probs",
    "response_mask",
    "responses",
    "returns",
)
"""Of verl's batch; its `returns` are the advantages before the weights (GRPO)."""


def main() -> None:
    """Run a step and write its nested tensors as their values and offsets."""
    import torch
    import transformers
    import verl

    with TemporaryDirectory() as name:
        folder = Path(name)
        policy = samples.policy()
        small_run.write_inputs(folder, policy)
        heads = calibrate(policy, padded(), REV.changed(**NUMBERS))
        heads.save(folder / "heads.json")
        small_run.start()
        changes = (*COUPLED, f"+credit.calibration={folder / 'heads.json'}")
        trainer = small_run.trainer_of(
            small_run.configuration(folder, *changes), verl_credit_trainer
        )
        data, _, _ = small_run.step(trainer, "recorded", samples.sequences())
        small_run.stop()
    tensors = {"local_heads": heads.local_heads, "global_heads": heads.global_heads}
    tensors["spans"] = heads.spans
    for field in FIELDS:
        tensors[f"{field}.values"] = data[field].values().contiguous()
        tensors[f"{field}.offsets"] = data[field].offsets().contiguous()
    facts = {"verl": verl.__version__, "torch": torch.__version__}
    facts |= {"transformers": transformers.__version__, "layers": str(list(heads.layers))}
    save_file(tensors, TARGET, metadata=facts)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {facts}")


if __name__ == "__main__":
    main()
