"""Users start from the files in cluster_configs/: each is read, and its fields are checked."""

import json
import os
import re
import shlex
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from orchestrator.ascend.placement import AscendHost, place
from orchestrator.ascend.rank_table.rules import faults_in_text
from orchestrator.ascend.rank_table.table import build_rank_table
from orchestrator.job.spec.job_spec import load_spec

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "cluster_configs"
NPUS_PER_HOST = 8


def load(name):
    return yaml.safe_load((CONFIGS / name).read_text())


def cluster_of(name):
    manifest = load(name)
    return manifest["spec"] if manifest["kind"] == "RayCluster" else manifest["spec"]["rayClusterSpec"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_job_file_is_a_job(path):
    assert load_spec(path).cluster.max_workers >= 1


def test_the_published_recipe_is_the_published_recipe():
    spec = load_spec(CONFIGS / "sen1-2.yaml")
    recipe = spec.train
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.seed) == (20, 500, 0.004, 0)
    assert (recipe.beta1, recipe.beta2, recipe.weight_decay) == (0.5, 0.9, 1e-4)
    assert (recipe.margin, recipe.temperature, spec.evaluate.batch) == (1.0, 0.1, 600)
    assert (spec.cluster.device, spec.cluster.workers) == ("ascend", 1)


def test_eight_devices_take_the_learning_rate_published_for_them():
    spec = load_spec(CONFIGS / "ascend-1x8.yaml")
    assert (spec.cluster.max_workers, spec.train.batch, spec.train.lr) == (8, 500, 0.01)
    assert spec.cluster.workers_per_host == NPUS_PER_HOST


@pytest.mark.parametrize("name", ["ascend-1x8.yaml", "ascend-4x8.yaml"])
def test_the_synthetic_pairs_of_a_first_run_fill_a_global_batch(name):
    spec = load_spec(CONFIGS / name)
    patches = spec.data.synthetic.pairs * spec.data.split.train * spec.data.patches.per_pair
    assert patches >= 1.2 * spec.global_batch


def test_the_named_hosts_make_a_legal_rank_table():
    cluster = load_spec(CONFIGS / "ascend-4x8.yaml").cluster
    hosts = [AscendHost.stated(host.address, host.devices) for host in cluster.hosts]
    places = place(hosts, cluster.max_workers, cluster.soc, cluster.workers_per_host)
    table = build_rank_table(places, cluster.soc)
    assert (table.world_size, len(table.servers)) == (32, 4)
    assert faults_in_text(table.to_json(), cluster.soc) == []


def test_only_its_owner_can_read_the_token_that_the_launcher_file_creates(tmp_path):
    text = (CONFIGS / "ray/on-premise.yaml").read_text()
    (line,) = re.findall(r"^#   (\(umask.*auth_token\))$", text, flags=re.MULTILINE)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("old, and readable by all")
    subprocess.run(["sh", "-c", line], env={**os.environ, "HOME": str(tmp_path)}, check=True)
    token = tmp_path / ".ray/auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", token.read_text())
    assert line in (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "cluster_configs/ray/kuberay-cluster.yaml"])
def test_every_job_that_we_show_how_to_submit_has_an_absolute_storage(name):
    text = re.sub(r"\\\n#?", " ", (ROOT / name).read_text())
    commands = re.findall(r"ray job submit .*? -- .*", text)
    assert commands
    for command in commands:
        launched = shlex.split(command[command.index(" -- ") + 4 :])
        assert launched[:2] == ["sdnet-orchestrate", "launch"]
        assert any(re.fullmatch("storage=/.+", word) for word in launched), command


def test_the_launcher_file_names_the_hosts_of_the_job():
    launcher = load("ray/on-premise.yaml")
    addresses = [launcher["provider"]["head_ip"], *launcher["provider"]["worker_ips"]]
    assert addresses == [host.address for host in load_spec(CONFIGS / "ascend-4x8.yaml").cluster.hosts]
    assert launcher["min_workers"] == launcher["max_workers"] == len(launcher["provider"]["worker_ips"])


def test_every_host_of_the_launcher_starts_ray_behind_a_token():
    launcher = load("ray/on-premise.yaml")
    assert "~/.ray/auth_token" in launcher["file_mounts"]
    starts = launcher["head_start_ray_commands"][-1], launcher["worker_start_ray_commands"][-1]
    for command, role in zip(starts, ("--head", "--address=$RAY_HEAD_IP:6379"), strict=True):
        assert f"RAY_AUTH_MODE=token ray start {role}" in command
        assert "source $CANN/set_env.sh && " in command
    for copied in launcher["file_mounts"].values():
        assert copied.startswith("~") or (ROOT / copied).is_file()


@pytest.mark.parametrize(
    ("installed", "sourced"),
    [(("cann",), "cann"), (("ascend-toolkit",), "ascend-toolkit"), (("ascend-toolkit", "cann"), "cann")],
)
def test_the_launcher_sources_whichever_cann_is_installed(tmp_path, installed, sourced):
    for name in installed:
        (tmp_path / name).mkdir()
        (tmp_path / name / "set_env.sh").write_text(f"echo {name}")
    command = load("ray/on-premise.yaml")["head_start_ray_commands"][-1].partition(" && ")[0]
    script = command.replace("/usr/local/Ascend", str(tmp_path))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sourced


@pytest.mark.parametrize("name", ["ray/kuberay-cluster.yaml", "ray/kuberay-job.yaml"])
def test_a_kubernetes_cluster_gives_each_ray_worker_the_devices_it_counts(name):
    manifest, cluster = load(name), cluster_of(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    (container,) = group["template"]["spec"]["containers"]
    for kind in ("limits", "requests"):
        assert container["resources"][kind]["huawei.com/Ascend910"] == str(NPUS_PER_HOST)
    # KubeRay pastes the value into a shell command: a JSON text within quotes.
    assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {"NPU": NPUS_PER_HOST}


@pytest.mark.parametrize("name", ["ray/kuberay-cluster.yaml", "ray/kuberay-job.yaml"])
def test_every_volume_that_a_pod_mounts_is_there_and_the_run_directory_is_shared(name):
    cluster = cluster_of(name)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        assert volumes[mounts["/mnt/sdnet"]]["persistentVolumeClaim"] == {"claimName": "sdnet-runs"}


def test_the_kubernetes_job_launches_once_and_takes_its_cluster_away():
    job = load("ray/kuberay-job.yaml")
    assert job["kind"] == "RayJob"
    assert job["spec"]["entrypoint"].startswith("sdnet-orchestrate launch /etc/sdnet/cluster.yaml ")
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["backoffLimit"] == 0
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert "/etc/sdnet" in {mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}


def test_job_and_cluster_manifest_ask_for_the_same_workers():
    workers = [cluster_of(f"ray/kuberay-{kind}.yaml")["workerGroupSpecs"] for kind in ("cluster", "job")]
    assert workers[0] == workers[1]


def test_the_image_copies_files_that_exist_and_says_that_it_is_untried():
    text = (CONFIGS / "ray/Dockerfile").read_text()
    assert "UNTRIED" in text
    sources = [
        name for line in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE) for name in line.split()
    ]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
