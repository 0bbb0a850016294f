"""verl on the processor alone: the platform layer that its GPU platforms implement, over gloo.

verl loads it where `VERL_USE_EXTERNAL_MODULES` names it, in the driver and in each worker.
"""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import verl.utils.distributed as distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

# verl joins the backends of the processor and of the device, which are one and the same here.
distributed.initialize_global_process_group_ray = partial(
    distributed.initialize_global_process_group_ray, backend="gloo"
)

SEAT = "GPU"
"""What Ray calls a device; it counts what it is told, whether or not there is one."""

NOTHING = SimpleNamespace(
    empty_cache=lambda: None,
    get_device_name=lambda: "cpu",
    is_available=lambda: False,
    manual_seed=lambda seed: None,
    max_memory_allocated=lambda: 0,
    max_memory_reserved=lambda: 0,
    memory_allocated=lambda: 0,
    memory_reserved=lambda: 0,
    mem_get_info=lambda: (0, 0),
    set_device=lambda index: None,
    synchronize=lambda: None,
)
"""What stands for `torch.cuda`."""


@PlatformRegistry.register(platform="cpu")
class ProcessorPlatform(PlatformBase):
    device_name = "cpu"
    vendor_name = "none"
    device_module = NOTHING

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def set_device(self, device_index):
        pass

    def synchronize(self, device_index=None):
        pass

    def manual_seed(self, seed):
        pass

    def manual_seed_all(self, seed):
        pass

    def set_allocator_settings(self, settings):
        pass

    def empty_cache(self):
        pass

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "ATTNSCOPE_VISIBLE_SEATS"

    @contextmanager
    def nvtx_range(self, msg):
        yield

    def profiler_start(self):
        pass

    def profiler_stop(self):
        pass

    def ray_resource_name(self):
        return SEAT

    def ray_noset_envvars(self):
        return []

    def is_ipc_supported(self):
        return False

    def cudart(self):
        return None
