"""A tiny run of verl on the processor: its own trainer, worker, engine and queue, no rollout."""

import os
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).parent
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
    "TRANSFER_QUEUE_ENABLE": "1",
    "VERL_ENGINE_DEVICE": "cuda",  # its FSDP engine, which runs on any device torch has
    "VERL_LOGGING_LEVEL": "ERROR",
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "cpu_platform",
}
OVERRIDES = (
    "actor_rollout_ref.actor.fsdp_config.model_dtype=fp32",
    "actor_rollout_ref.actor.fsdp_config.use_torch_compile=False",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision.buffer_dtype=fp32",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
    "+actor_rollout_ref.actor.fsdp_config.mixed_precision.reduce_dtype=fp32",
    "actor_rollout_ref.actor.optim.lr=0.001",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.actor.strategy=fsdp2",
    "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.rollout.n=2",
    "algorithm.adv_estimator=grpo",
    "data.train_batch_size=2",
    "trainer.device=cpu",
    "trainer.n_gpus_per_node=1",
    "trainer.nnodes=1",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    "transfer_queue.enable=True",
)


def start():
    """Start Ray and the queue; every process of the run knows the platform."""
    os.environ.update(SETTINGS)
    import ray
    import transfer_queue
    import verl  # noqa: F401 - the platform, and our plug-in

    # Seats are counted, not looked for: a seat for each trainer of the checks.
    ray.init(
        num_cpus=64, num_gpus=8, include_dashboard=False, runtime_env={"env_vars": dict(SETTINGS)}
    )
    transfer_queue.init(configuration(Path.cwd()).transfer_queue)


def registered_modes():
    """Return the trainers that a process knows once it has imported verl, and nothing else."""
    import sys

    import verl  # noqa: F401

    modes = sys.modules["verl.trainer.ppo.v1.trainer_base"].TRAINER_REGISTRY
    return {name: trainer.__name__ for name, trainer in modes.items()}


def stop():
    """Let the queue and Ray go."""
    import ray
    import transfer_queue

    transfer_queue.close()
    ray.shutdown()


def write_inputs(folder, policy):
    """Write the policy, a tokenizer of as many words, and the prompts that verl wants to see."""
    import pandas
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    policy.save_pretrained(folder)
    words = {f"w{number}": number for number in range(policy.config.vocab_size)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w1")),
        pad_token="w0",
        eos_token="w5",
        unk_token="w1",
        chat_template="{% for message in messages %}{{ message['content'] }}{% endfor %}",
    ).save_pretrained(folder)
    row = {
        "prompt": [{"role": "user", "content": "w7 w8"}],
        "data_source": "none",
        "reward_model": {"ground_truth": "1", "style": "rule"},
    }
    rows = [row | {"extra_info": {"index": index}} for index in range(4)]
    pandas.DataFrame(rows).to_parquet(folder / "prompts.parquet")


def configuration(folder, *changes):
    """Return verl's own configuration, with a few changes."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    prompts = folder / "prompts.parquet"
    own = (
        f"actor_rollout_ref.model.path={folder}",
        f"data.train_files=[{prompts}]",
        f"data.val_files=[{prompts}]",
    )
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[*OVERRIDES, *own, *changes])
    OmegaConf.resolve(config)
    return config


def trainer_of(config, make=lambda trainer: trainer):
    """Return a trainer whose actor is set up; rollout and rewards, which need a GPU, are not.

    Args:
        config: The configuration.
        make: What to make of verl's synchronous trainer.
    """
    from verl.trainer.ppo.v1 import PPOTrainerSync, trainer_base

    no_servers = SimpleNamespace(get_replicas=list)
    trainer_base.LLMServerManager = SimpleNamespace(create_empty=lambda config: no_servers)
    trainer_base.RewardLoopManager = lambda **settings: SimpleNamespace()
    alone = type("PPOTrainerAlone", (PPOTrainerSync,), {"_enable_hybrid_replicas": False})
    trainer = make(alone)(config)
    trainer.global_steps = 1
    trainer._setup()
    return trainer


def release(trainer):
    """End a trainer's workers and give back their places, which the next one takes by name."""
    from time import sleep

    from ray.util import placement_group_table, remove_placement_group

    for pool in trainer.resource_pool_manager.resource_pool_dict.values():
        for group in pool.pgs:
            remove_placement_group(group)
            while placement_group_table(group)["state"] != "REMOVED":
                sleep(0.1)


def put(name, sequences):
    """Put responses into the queue as a rollout does, two of each prompt, and return their meta.

    Args:
        name: Whatever tells them from others.
        sequences: Prompts, responses and response masks; every other response is rewarded.
    """
    import torch
    import transfer_queue
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    keys, fields, tags = [], [], []
    for number, (prompt, response, mask) in enumerate(sequences):
        ids, group = torch.cat([prompt, response]), f"{name}{number // 2}"
        score = torch.zeros(len(response))
        score[-1] = float(number % 2)
        keys.append(f"{group}_{number % 2}_0")
        fields.append(
            {
                "input_ids": ids,
                "loss_mask": mask,
                "multi_modal_inputs": {},
                "position_ids": torch.arange(len(ids)),
                "prompts": prompt,
                "response_mask": mask,
                "responses": response,
                "rm_scores": score,
                "rollout_log_probs": torch.zeros(len(response)),
                "uid": group,
            }
        )
        lengths = {"prompt_len": len(prompt), "response_len": len(response), "seq_len": len(ids)}
        tags.append({"status": "success", "global_steps": 1} | lengths)
    transfer_queue.kv_batch_put(
        keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id="train"
    )
    return transfer_queue.KVBatchMeta(
        keys=keys, tags=tags, partition_id="train", extra_info={"temperature": 1.0}
    )


def step(trainer, name, sequences):
    """Run verl's step from the old log-probabilities to the update.

    Returns:
        The fields of the batch, the metrics, and the log-probabilities after the update.
    """
    import transfer_queue

    metrics = {}
    batch = put(name, sequences)
    batch = trainer._compute_old_log_prob(batch, metrics)
    batch = trainer._compute_advantage(batch, metrics)
    data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id="train")
    trainer._update_actor(batch, metrics)
    after = trainer._compute_old_log_prob(put(f"{name}-after", sequences), {})
    after = transfer_queue.kv_batch_get(
        keys=after.keys, partition_id="train", select_fields=["old_log_probs"]
    )
    return data, metrics, after["old_log_probs"].values()
