"""Tools and files of a host that hang, colour their output or may not be read: a problem, never a traceback."""

import contextlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from orchestrator.ascend.inventory import host_tools
from orchestrator.ascend.inventory.device_ids import with_both_ids
from orchestrator.ascend.inventory.host_inventory import take_inventory
from orchestrator.ascend.inventory.host_tools import AscendHostTools, ToolBusy, ToolFailed
from orchestrator.ascend.inventory.npu_smi import ChipIds, UnreadableOutput, parse_mapping
from orchestrator.ascend.inventory.npu_smi_table import parse_info
from tests.ascend_fakes import tools
from tests.ascend_fakes.host import describe, install
from tests.unprivileged import as_nobody, let_anybody_write


def busy_host():
    host = describe(1, devices=[0, 1])
    host["devices"][1] |= {"health": "Alarm", "processes": [[77, "python", 10]]}
    return host


def test_colours_hide_no_device_and_no_process(tmp_path):
    host = busy_host()
    coloured = [
        f"\x1b[31m{line}\x1b[0m" if "| 1 " in line else line for line in tools.info(host).splitlines()
    ]
    host["garbled_info"] = "\n".join(coloured) + "\n"
    reported = take_inventory("10.0.0.1", tools=AscendHostTools(install(tmp_path, host)))
    assert [device.device_id for device in reported.devices] == [0, 1]
    assert [process.pid for process in reported.devices[1].processes or ()] == [77]


def test_a_message_in_front_of_a_row_does_not_hide_a_busy_device():
    torn = tools.info(busy_host()).replace("| 1       0", "DrvMngGetConsoleLogLevel failed.| 1       0")
    with pytest.raises(UnreadableOutput, match="the row 'DrvMngGetConsoleLogLevel failed"):
        parse_info(torn)


@pytest.mark.parametrize(
    ("rows", "reported"),
    [
        (["0  0  0  910B", "1  0  0  910B"], "an earlier row has an id of '1 0 0 910B'"),
        (["0  0  0  910B", "0  0  1  910B"], "an earlier row has an id of '0 0 1 910B'"),
        ([], "no chip follows its header"),
    ],
    ids=["one logical id twice", "one chip twice", "no row"],
)
def test_a_mapping_that_contradicts_itself_is_refused(rows, reported):
    with pytest.raises(UnreadableOutput, match=reported):
        parse_mapping("\n".join(["NPU ID  Chip ID  Chip Logic ID  Chip Name", *rows]))


def test_no_two_devices_get_one_logical_id():
    info = parse_info(tools.info(describe(1, devices=[4, 5])))
    reported = with_both_ids(info, {(4, 0): ChipIds(0), (5, 0): ChipIds(0)})
    assert [device.logical_id for device in reported.devices] == [0, 1]


def test_a_device_that_the_mapping_does_not_know_is_reported(tmp_path):
    root = install(tmp_path, describe(1, devices=[0, 1]))
    (root / "mapped.json").write_text(json.dumps(describe(1, devices=[0])))
    tool = root / "usr/local/bin/npu-smi"
    without_1 = f"root = {str(root)!r}\nif sys.argv[1:] == ['info', '-m']:\n    import json\n"
    without_1 += "    print(tools.mapping(json.load(open(root + '/mapped.json'))))\n    sys.exit()\n"
    tool.write_text(tool.read_text().replace("tools.main", without_1 + "tools.main"))
    reported = take_inventory("10.0.0.1", tools=AscendHostTools(root))
    expected = "10.0.0.1: the table of npu-smi knows chip 0 of NPU 1, `npu-smi info -m` does not"
    assert reported.problems == (expected,)


def test_files_that_this_user_may_not_read_are_no_traceback(tmp_path):
    let_anybody_write(tmp_path)
    root = install(tmp_path, describe(1, devices=[0]), tools=(), conf="address_0=192.168.1.1\n")
    shown = tools.info(describe(1, devices=[0]))
    tool = root / "usr/local/bin/npu-smi"
    tool.parent.mkdir(parents=True)
    (root / "info.txt").write_text(shown)
    tool.write_text(f"#!/bin/sh\ncat {root}/info.txt\n")
    tool.chmod(0o755)
    (root / "etc/hccn.conf").chmod(0o000)
    nodes = [*root.glob("sys/bus/pci/devices/*/numa_node"), root / "sys/devices/system/node/node0/cpulist"]
    nodes[-1].parent.mkdir(parents=True)
    nodes[-1].write_text("0\n")
    for node in nodes:
        node.chmod(0o000)
    for tools_folder in (root / "usr/local/Ascend/driver/tools", root / "usr/sbin"):
        tools_folder.mkdir(parents=True, mode=0o000)

    def problems() -> str:
        reported = take_inventory("10.0.0.1", tools=AscendHostTools(root))
        return "\n".join([*(str(device.device_id) for device in reported.devices), *reported.problems])

    first, *others = as_nobody(problems).splitlines()
    assert first == "0"
    refusal = f"10.0.0.1: {root}/etc/hccn.conf cannot be read (Permission denied); correct it on that host"
    assert refusal in others


def script_as_npu_smi(tmp_path, text):
    root = install(tmp_path, describe(1, devices=[0]))
    (root / "usr/local/bin/npu-smi").write_text(f"#!/bin/sh\n{text}\n")
    return AscendHostTools(root)


def test_a_tool_that_survives_its_kill_is_not_awaited(tmp_path, monkeypatch):
    found = script_as_npu_smi(tmp_path, "exec sleep 60")
    survivors: list[int] = []
    # A real process that hangs inside a driver ignores SIGKILL; a test cannot make one.
    monkeypatch.setattr(os, "killpg", lambda group, signal_: survivors.append(group))
    monkeypatch.setattr(host_tools, "_TOOL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(host_tools, "_KILLED_ENDS_WITHIN_S", 0.1)
    began = time.monotonic()
    with pytest.raises(ToolFailed, match="no end after 0 s; the driver may hang"):
        found.npu_smi("info")
    assert time.monotonic() - began < 30
    os.kill(survivors[0], signal.SIGKILL)


def test_a_script_that_hangs_is_killed_with_its_children(tmp_path, monkeypatch):
    found = script_as_npu_smi(tmp_path, f"sleep 60 &\necho $! >{tmp_path}/child\nwait")
    monkeypatch.setattr(host_tools, "_TOOL_TIMEOUT_S", 2.0)
    with pytest.raises(ToolFailed, match="no end after 2 s"):
        found.npu_smi("info")
    _wait_for_its_end(int((tmp_path / "child").read_text()))


def _wait_for_its_end(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # In a container an orphan may stay a zombie.
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(5)
        assert process.status() == psutil.STATUS_ZOMBIE


def test_a_tool_that_this_user_cannot_start_is_named(tmp_path):
    found = script_as_npu_smi(tmp_path, "")
    (tmp_path / "usr/local/bin/npu-smi").write_text("#!/nonexistent\n")
    with pytest.raises(ToolFailed, match="/usr/local/bin/npu-smi cannot be started \\(No such file"):
        found.npu_smi("info")


def test_output_without_an_end_is_refused_before_it_fills_the_memory(tmp_path):
    found = script_as_npu_smi(tmp_path, "exec yes")
    with pytest.raises(ToolFailed, match="it prints more than 4,000,000 bytes"):
        found.npu_smi("info")


@pytest.mark.parametrize(
    ("script", "reported"),
    [
        ("echo '+---+'; echo '| 0 |'; echo '+===+'; exit 1", "exit code 1, no message"),
        (
            "echo '+---+'; echo 'dcmi init failed. ret is -8005'; echo; exit 3",
            "exit code 3, dcmi init failed. ret is -8005; another container may hold the devices",
        ),
        ("echo a table; echo 'no rights' >&2; exit 1", "exit code 1, no rights"),
        ("kill -SEGV $$", "killed by signal 11, no message"),
    ],
    ids=["after a good table", "words on its output", "words on its error output", "by a signal"],
)
def test_a_tool_that_fails_is_quoted_with_its_last_words(tmp_path, script, reported):
    with pytest.raises(ToolFailed, match=f"`npu-smi info` failed: {reported}"):
        script_as_npu_smi(tmp_path, script).npu_smi("info")


def busy_hccn_tool(root, *, tries, code):
    """An hccn_tool whose device answers the first `tries` tries of each command that it is busy."""
    real = root / "usr/local/Ascend/driver/tools/hccn_tool"
    real.rename(real.with_suffix(".real"))
    real.write_text(
        f'#!/bin/sh\nfor try in $(seq {tries}); do\n    mkdir "{root}/$try$*" 2>/dev/null || continue\n'
        f"    echo 'hccn_tool is busy, please try again.'\n    exit {code}\ndone\nexec {real}.real \"$@\"\n"
    )
    real.chmod(0o755)
    pauses: list[float] = []
    return AscendHostTools(root, wait=pauses.append), pauses


@pytest.mark.parametrize("code", [0, 1])
def test_a_busy_device_is_asked_again_until_it_answers(tmp_path, code):
    root = install(tmp_path, describe(1, devices=[0, 1]))
    found, pauses = busy_hccn_tool(root, tries=1, code=code)
    reported = take_inventory("10.0.0.1", tools=found)
    assert [device.address for device in reported.devices] == ["192.168.1.1", "192.168.1.2"]
    assert reported.problems == ()
    assert len(pauses) == 6 and all(0.1 <= pause_s <= 0.3 for pause_s in pauses)
    assert "packet loss" in found.hccn_tool("-i", "0", "-ping", "-g", "address", "10.1.1.1")


def test_devices_that_share_one_lock_of_the_host_are_asked_again_one_after_another(monkeypatch):
    first_tries, second_tries = threading.Barrier(3), threading.Barrier(2)
    asked = []

    def run(self, name, places, arguments):
        asked.append(arguments)
        if asked.count(arguments) == 1:
            first_tries.wait(10)
            raise ToolBusy("hccn_tool", "busy")
        with contextlib.suppress(threading.BrokenBarrierError):
            second_tries.wait(0.2)
            raise AssertionError("two devices were asked again at the same time")
        return "answer"

    monkeypatch.setattr(AscendHostTools, "_run", run)
    host = AscendHostTools(wait=lambda pause_s: None)
    with ThreadPoolExecutor(max_workers=3) as pool:
        assert list(pool.map(host.hccn_tool, "012")) == ["answer"] * 3


def test_a_device_that_stays_busy_is_a_problem_that_says_what_to_do(tmp_path):
    host = describe(1, devices=[0])
    host["devices"][0]["ipv6"] = "2001:db8::1"
    found, pauses = busy_hccn_tool(install(tmp_path, host), tries=6, code=0)
    reported = take_inventory("10.0.0.1", tools=found)
    # Its IPv6 address is not asked for: an IPv4 address may be there, and HCCL prefers it.
    assert reported.devices[0].address is None
    assert len(pauses) == 5 * 3 and 8.0 < sum(pauses) < 26.0
    assert len(reported.problems) == 3
    for command, problem in zip(("-ip -g", "-link -g", "-net_health -g"), reported.problems, strict=True):
        assert (
            f"`hccn_tool -i 0 {command}` failed: 'hccn_tool is busy, please try again.' at each try; another "
            "process, such as a monitor, uses hccn_tool there: stop that process, or try again"
        ) in problem


def test_the_first_line_of_an_answer_without_an_address_is_quoted(tmp_path):
    root = install(tmp_path, describe(1, devices=[0]))
    tool = root / "usr/local/Ascend/driver/tools/hccn_tool"
    tool.write_text(
        "#!/bin/sh\ncase $* in *inet6*) exit;; esac\necho; echo 'port 0 is not set up'; echo end\n"
    )
    reported = take_inventory("10.0.0.1", tools=AscendHostTools(root))
    assert "hccn_tool -i 0 -ip -g shows none, but 'port 0 is not set up'; hccn_tool" in reported.problems[0]
    assert "-inet6 -g shows none; " in reported.problems[0]
