"""Which GPUs a process may use: CUDA's environment variable in terms of NVML's devices."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence


def visible(uuids: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs that CUDA shows to this process, in CUDA's order.

    NVML sees every GPU of the machine, CUDA only those of ``CUDA_VISIBLE_DEVICES``: indices, UUIDs or beginnings of UUIDs. As CUDA
    does, the list ends at the first entry that names nothing. An index counts in PCI order, which is CUDA's order
    when ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` is set or the GPUs are alike.

    Args:
        uuids: UUIDs in NVML's order.
        environment: Variables; the process's own by default.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables".
    """
    variables = os.environ if environment is None else environment
    text = variables.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return tuple(uuids)
    chosen: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.lstrip("+-").isdigit():
            found = [uuids[int(entry)]] if 0 <= int(entry) < len(uuids) else []
        elif entry.startswith("MIG-GPU-"):
            # Older drivers name an instance after its GPU: MIG-GPU-<uuid>/<gi>/<ci>.
            found = [uuid for uuid in uuids if uuid == entry.removeprefix("MIG-").split("/")[0]]
        else:
            found = [uuid for uuid in uuids if entry and uuid.startswith(entry)]
        if len(found) != 1:
            break
        if found[0] not in chosen:
            chosen.append(found[0])
    return tuple(chosen)


def instances(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the MIG instances that ``CUDA_VISIBLE_DEVICES`` names."""
    variables = os.environ if environment is None else environment
    entries = (part.strip() for part in variables.get("CUDA_VISIBLE_DEVICES", "").split(","))
    return tuple(entry for entry in entries if entry.startswith("MIG-"))
