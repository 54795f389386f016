"""The GPU power limit is put back whatever happens; NVML is a fake that remembers every call."""

import atexit
import json
import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from helpers import forked
from torch import nn

from joulefront.search.training.tactics.power_limit import PowerLimit, set_power_limit
from joulefront.search.training.tactics.tactic import attached

UUID = "11111111-2222-3333-4444-555555555555"

FAKE = """
class NVMLError(Exception):
    def __init__(self, value):
        super().__init__({4: "Insufficient Permissions", 3: "Not Supported", 15: "GPU is lost"}[value])
        self.value = value


class FakeNvml:
    NVMLError, NVML_ERROR_NO_PERMISSION, NVML_ERROR_NOT_SUPPORTED = NVMLError, 4, 3

    def __init__(self, limit=300_000, refuse=None, ignore=False, init_fails=False, log=None):
        self.limit, self.refuse, self.ignore, self.init_fails, self.log = limit, refuse, ignore, init_fails, log
        self.set_to, self.asked = [], None

    def nvmlInit(self):
        if self.init_fails:
            raise NVMLError(15)

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked = uuid
        return "handle"

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle):
        return [100_000, 350_000]

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        return self.limit

    def nvmlDeviceSetPowerManagementLimit(self, handle, limit):
        if self.refuse:
            raise NVMLError(self.refuse)
        self.set_to.append(limit)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{limit}\\n")
        if not self.ignore:
            self.limit = limit
"""
_names: dict = {}
exec(FAKE, _names)  # the same text runs in the child processes below
FakeNvml = _names["FakeNvml"]


def test_the_limit_is_set_in_milliwatts_and_put_back_once():
    nvml = FakeNvml()
    restore = set_power_limit(UUID, 200.0, nvml)
    assert nvml.asked == f"GPU-{UUID}".encode()
    assert nvml.limit == 200_000
    assert restore.before_watts == 300.0
    restore()
    restore()
    assert nvml.set_to == [200_000, 300_000]


def test_nested_limits_are_put_back_one_after_the_other():
    nvml = FakeNvml()
    outer = set_power_limit(UUID, 250.0, nvml)
    inner = set_power_limit(UUID, 150.0, nvml)
    inner()
    assert nvml.limit == 250_000
    outer()
    assert nvml.limit == 300_000


def test_without_permission_the_training_is_refused_and_nothing_is_written():
    nvml = FakeNvml(refuse=4)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(PermissionError, match="run as root"):
        set_power_limit(UUID, 200.0, nvml)
    assert nvml.set_to == []
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize("watts", [99.0, 351.0])
def test_a_limit_outside_of_what_the_gpu_allows_is_refused_with_its_range(watts):
    nvml = FakeNvml()
    with pytest.raises(ValueError, match="between 100 and 350 on this GPU"):
        set_power_limit(UUID, watts, nvml)
    assert nvml.set_to == []


def test_a_limit_that_the_gpu_ignores_is_no_success():
    nvml = FakeNvml(ignore=True)
    with pytest.raises(RuntimeError, match="200 W was not accepted, the GPU reports 300 W"):
        set_power_limit(UUID, 200.0, nvml)
    assert nvml.set_to[-1] == 300_000


@pytest.mark.parametrize("fault", [{"init_fails": True}, {"refuse": 3}])
def test_a_gpu_without_power_management_is_refused_clearly(fault):
    with pytest.raises(RuntimeError, match="leave the tactic out"):
        set_power_limit(UUID, 200.0, FakeNvml(**fault))


def test_a_restore_that_fails_names_the_command_to_run():
    nvml = FakeNvml()
    restore = set_power_limit(UUID, 200.0, nvml)
    nvml.refuse = 15
    with pytest.raises(RuntimeError, match=f"nvidia-smi -i GPU-{UUID} -pl 300"):
        restore()


def test_a_model_on_the_cpu_is_refused():
    tactic = PowerLimit(watts=200.0, nvml=FakeNvml())
    with pytest.raises(ValueError, match="needs a model on an NVIDIA GPU, got one on cpu"):
        tactic.attach(nn.Linear(2, 2))
    assert tactic.detach() == {}


def test_the_tactic_finds_the_gpu_of_the_model_by_its_uuid_and_reports_both_limits(monkeypatch):
    model = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda", 1))]))
    uuids = {torch.device("cuda", 1): UUID}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[device]))
    nvml = FakeNvml()
    with attached([PowerLimit(watts=200.0, nvml=nvml)], model) as columns:
        assert nvml.asked == f"GPU-{UUID}".encode()
        assert nvml.limit == 200_000
    assert nvml.limit == 300_000
    assert columns == {"power_limit_watts": 200.0, "power_limit_before_watts": 300.0}


def test_watts_must_be_positive():
    with pytest.raises(ValueError, match="watts must be > 0, got -5"):
        PowerLimit(watts=-5)


def test_it_works_in_a_thread_where_no_signal_can_be_listened_to():
    nvml, failed = FakeNvml(), []

    def work():
        try:
            set_power_limit(UUID, 200.0, nvml)()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
    assert nvml.set_to == [200_000, 300_000]


def test_handlers_of_others_are_called_after_the_restore_and_stay():
    nvml, seen = FakeNvml(), []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(nvml.limit))
    own = signal.getsignal(signal.SIGTERM)
    try:
        set_power_limit(UUID, 200.0, nvml)
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [300_000]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_is_left_at_exit_after_a_restore(monkeypatch):
    registered = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", registered.remove)
    restore = set_power_limit(UUID, 200.0, FakeNvml())
    assert registered == [restore]
    restore()
    assert registered == []


#: How a process may end after it has set the limit, and its exit code then.
ENDINGS = {
    "end": ("", 0),
    "exit": ("sys.exit(3)", 3),
    "exception": ("raise RuntimeError('training failed')", 1),
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(30)", -signal.SIGTERM),
    "fork": ("pid = os.fork()\nif pid == 0:\n    sys.exit(0)\nos.waitpid(pid, 0)", 0),
}
#: A process that has loaded what it takes is forked for each of them.
ENDS = (
    FAKE
    + """
import json, os, signal, sys
from joulefront.search.training.tactics.power_limit import set_power_limit
codes = {}
for name, body in json.loads(sys.argv[1]).items():
    pid = os.fork()
    if pid == 0:
        restore = set_power_limit(sys.argv[3], 200.0, FakeNvml(log=os.path.join(sys.argv[2], name)))
        exec(body)
        sys.exit(0)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps(codes))
"""
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str]]]:
    """Exit codes of processes that set 200 W and then ended, and the limits that were written."""
    folder = tmp_path_factory.mktemp("limits")
    done = forked.run("-c", ENDS, json.dumps({name: body for name, (body, _) in ENDINGS.items()}), folder, UUID, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: (code, (folder / name).read_text().split()) for name, code in json.loads(done.stdout).items()}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
def test_the_limit_is_put_back_exactly_once_however_the_process_ends(ended, how):
    assert ended[how] == (ENDINGS[how][1], ["200000", "300000"])
