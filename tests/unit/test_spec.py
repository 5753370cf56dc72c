"""cluster.yaml is read strictly: wrong input is one line with its path, its value and what is allowed."""

from pathlib import Path

import pytest

from orchestrator.job.spec.job_spec import ClusterSpec, load_spec, spec_from_dict
from orchestrator.job.spec.yaml_text import yaml_text
from sdnet.errors import InputError
from sdnet.recipes import RECIPES

# The whole of the documented file, every key with its documented value.
DOCUMENTED = """
name: s1s2
storage: ./runs
cluster:
  address: local
  device: cpu
  workers: 2
  workers_per_host: 2
  soc: 910b
  rendezvous: dynamic_cluster
  hosts: [{address: 172.16.0.110, devices: {0: 192.168.1.8}}]
data:
  synthetic: {pairs: 240, scenes: 12, seed: 0}
  patches: {size: 64, per_pair: 3, detect_on: optical, min_distance_px: 16, negatives: 1.0}
  split: {train: 0.7, seed: 0}
train: {recipe: demo, epochs: 2, batch: 32}
checkpoint: {every_s: auto, keep: 3}
recovery: {max_failures: 10, step_timeout_s: auto}
evaluate: {every_epochs: 1, batch: 600}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(DOCUMENTED)
    return path


def test_the_documented_file_is_accepted_whole(job: Path) -> None:
    spec = load_spec(job)
    assert spec.cluster.hosts[0].devices == {0: "192.168.1.8"}
    assert spec.train.batch == 32 and spec.train.epochs == 2
    assert spec.train.lr == RECIPES["demo"].lr
    assert spec.global_batch == 64


def test_a_name_alone_makes_a_job_with_the_published_recipe() -> None:
    assert spec_from_dict({"name": "x"}, "job").train == RECIPES["sen1_2"]


def test_set_overrides_any_key_and_reads_the_value_as_yaml(job: Path) -> None:
    patterns = 'data.split={train_scenes: ["ROIs2020_*"], test_scenes: ["ROIs2021_*"]}'
    spec = load_spec(job, ("train.epochs=5", "cluster.workers=[1, 2]", patterns))
    assert spec.train.epochs == 5
    assert (spec.cluster.min_workers, spec.cluster.max_workers, spec.cluster.elastic) == (1, 2, True)
    assert spec.data.split.train_scenes == ("ROIs2020_*",)


@pytest.mark.parametrize(
    ("override", "path", "said"),
    [
        ("train.epocs=3", "train.epocs", "not a key"),
        ("cluster.worker=3", "cluster.worker", "not a key"),
        ("train.epochs='2'", 'train.epochs is "2"', "that is text here: write 2"),
        ("train.epochs=0", "epochs is 0", "from 1 to 100000"),
        ("train.lr=.inf", "lr is .inf", "from 1e-12 to 10"),
        ("train.batch=1", "batch is 1", "from 2 to 65536"),
        (
            "train.objective=hardnet",
            'train.objective is "hardnet"',
            "be 'published', 'contrastive' or 'triplet'",
        ),
        ("train.slice_batch=7", "slice_batch is 7", "a divisor of batch (32)"),
        ("train={recipe: modern, margin: 2}", "margin is 2", "objective contrastive does not use it"),
        ("train.contrastive_temperature=0.1", "contrastive_temperature is 0.1", "left at 0.07, because"),
        ("train.gamma=3", "gamma is 3", "from 0 to 2"),
        (
            "train={rotation_deg: 45, scale: 0.5}",
            "train.rotation_deg, train.scale",
            "at most 128 px are stored",
        ),
        ("data.patches.stored_size=65", "stored_size is 65", "even, from 64 to 128"),
        ("cluster.workers=[2, 1]", "workers is [2, 1]", "[fewest, most]"),
        ("cluster.workers=0", "workers is 0", "from 1"),
        ("cluster.device=gpu", 'cluster.device is "gpu"', "be 'cpu' or 'ascend'"),
        ("cluster.rendezvous=rank_table", "rendezvous is rank_table", "needs device ascend; use auto"),
        ("cluster={device: ascend, rendezvous: store}", "rendezvous is store", "needs device cpu; use auto"),
        ("data.patches.size=32", "data.patches.size", "32"),
        ("data.split.train_scenes=[a]", "train_scenes", "together with test_scenes"),
        ("data.max_bad_images=2", "data.max_bad_images", "2"),
        ("checkpoint.every_s=.nan", "checkpoint.every_s", "seconds from 0 to a year, or auto"),
        ("checkpoint.keep=0", "checkpoint.keep", "0"),
        ("recovery.step_timeout_s=0", "recovery.step_timeout_s", "from 1 to a year"),
        ("train.recipe=foo", 'train.recipe is "foo"', "demo, modern, sen1_2"),
        ("name=../x", "name", "../x"),
        ("cluster.hosts=[{address: a, devices: {}}]", "cluster.hosts.0.devices", "at least 1"),
        ("train=3", "train", "3"),
        ("name=5", "name is 5", "which YAML reads as a number; put it in quotes"),
        ("cluster.workers={a: 1}", 'cluster.workers is {"a": 1}', "; it must be a whole number or be a list"),
        ("train.flips='True'", 'train.flips is "True"', "that is text here: write true, without quotes"),
        ("train.lr='1e-3'", 'train.lr is "1e-3"', "that is text here: write 0.001"),
        ("train.recipe=[demo]", 'train.recipe is ["demo"]', "demo, modern, sen1_2"),
        ("train.recepi=demo", "train.recepi is not a key", "did you mean recipe?"),
        ("cluster.hosts=[{adress: a, devices: {0: b}}]", "cluster.hosts.0.adress", "did you mean address?"),
        ("cluster.workers=two", 'cluster.workers is "two"', "be a whole number or be a list"),
        ("cluster.workers=[1, two]", 'cluster.workers.1 is "two"', "be a whole number"),
        ("cluster.workers=[1]", "cluster.workers must hold", "at least 2 values"),
        ("cluster.workers=[1, 2, 3]", "cluster.workers is [1, 2, 3]", "hold at most 2"),
        ("cluster.address=somewhere", 'cluster.address is "somewhere"', "local, auto or host:port"),
        ("cluster.address=ray://h:10001", "cluster.address", "local, auto or host:port"),
        ("cluster.address='h:99999'", "cluster.address", "local, auto or host:port"),
        ("cluster=null", "cluster has no value", "indent its keys below it, or remove it"),
        ("recovery.standbys=maybe", 'recovery.standbys is "maybe"', "be true or false"),
        ("data.synthetic.pairs=-1", "data.synthetic.pairs is -1", "at least scenes (12)"),
        ("evaluate={2020-01-01: 3}", "evaluate.2020-01-01 is not a key", "see docs/cluster_yaml.md"),
    ],
)
def test_a_wrong_value_is_named_with_its_path_and_what_is_allowed(
    job: Path, override: str, path: str, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_spec(job, (override,))
    message = str(caught.value)
    assert path in message and said in message
    assert "\n" not in message


def test_a_cluster_in_which_ray_counts_no_npu_is_not_called_too_small() -> None:
    cluster = ClusterSpec(device="ascend", workers=1)
    assert "but Ray counts no NPU on any of the 2 host(s)" in cluster.why_too_large([0, 0])
    assert cluster.why_too_large([0, 1]) == ""


def test_a_recipe_decides_what_is_stored_and_a_saved_job_keeps_it() -> None:
    spec = spec_from_dict({"name": "a", "train": {"recipe": "modern"}}, "job")
    assert (spec.data.patches.stored_size, spec.data.patches.align) == (96, True)
    assert spec_from_dict(spec.values(), "job.yaml") == spec
    published = spec_from_dict({"name": "a"}, "job").data.patches
    assert (published.stored_size, published.align) == (64, False)


def test_at_most_three_faults_are_reported_and_the_others_counted() -> None:
    with pytest.raises(InputError) as caught:
        spec_from_dict({"a": 1, "b": None, "c": [True], "d": "x", "e": 0}, "job")
    assert str(caught.value) == (
        "job: name is missing; give it a value; a is not a key of a job (value 1); remove it, or see "
        "docs/cluster_yaml.md; b is not a key of a job (value null); remove it, or see docs/cluster_yaml.md; "
        "and 3 more"
    )


def test_a_missing_file_and_broken_yaml_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_spec(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(InputError, match="is not YAML") as caught:
        load_spec(tmp_path / "broken.yaml")
    assert "\n" not in str(caught.value)


def test_yaml_that_would_build_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="line 1: name has the tag .*; remove it"):
        load_spec(tmp_path / "evil.yaml")


def test_a_spec_written_out_and_read_back_is_the_same_job(job: Path) -> None:
    spec = load_spec(job)
    long = load_spec(job, ("storage=/data/" + "a long name " * 20 + "end", "name='1e3'"))
    for written in (spec, long):
        job.write_text(yaml_text(written.values()))
        assert load_spec(job) == written


def refused(job: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_spec(job, overrides)
    return str(caught.value)


def test_each_fault_has_the_line_where_it_is_written(job: Path) -> None:
    job.write_text("name: a\ntrain:\n  epochs: 0\ncluster: {threads: 0}\n")
    assert refused(job, "recovery.standbys=2") == (
        f"{job} line 4: cluster.threads is 0; it must be at least 1; line 3: train.epochs is 0; "
        "it must be from 1 to 100000; --set: recovery.standbys is 2; it must be true or false"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("storage:", 'storage has no value; give one, or leave the key out for "./runs"'),
        ("data:", "data has no value; indent its keys below it, or remove it"),
        ("data: {images: }", "data.images has no value; give one, or leave the key out for synthetic pairs"),
        ("train: {lr: ~}", "train.lr has no value; give one, or leave the key out for the recipe's"),
        ("train: {recipe: }", "train.recipe has no value; give one, or leave the key out for the recipe's"),
        ("checkpoint: {keep: null}", "checkpoint.keep has no value; give one, or leave the key out for 3"),
        ("cluster: {hosts: [null]}", "cluster.hosts.0 has no value; indent its keys below it, or remove it"),
        ("cluster: {hosts: [{address: h, devices: {0: }}]}", "cluster.hosts.0.devices.0 has no value"),
        ("cluster: {hosts: [{address: h, devices: {0: 5}}]}", "devices.0 is 5, which YAML reads as a number"),
        ("cluster: {hosts: a}", 'cluster.hosts is "a"; it must be a list: give address and devices of each item'),
        ("storage: ''", "storage is empty; give a value, or leave the key out"),
        ("storage: ' x'", 'storage is " x"; remove the space around it'),
        ("storage: ${OUT}/runs", 'storage is "${OUT}/runs"; variables and templates are not expanded here'),
        ("storage: $OUT/runs", 'storage is "$OUT/runs"; variables and templates are not expanded here'),
        ("storage: '{{ out }}'", "variables and templates are not expanded here: write the value"),
        ("storage: '`pwd`/runs'", "variables and templates are not expanded here: write the value"),
        ("data: {images: <your storage>}", 'data.images is "<your storage>"; variables and templates are not'),
        ("storage: <path/to/runs>", 'storage is "<path/to/runs>"; variables and templates are not'),
        ("data: {prepared: /data/<user>_s1s2}", 'prepared is "/data/<user>_s1s2"; variables and templates are not'),
        ("cluster: {cache: {path: /a/<b/c>/d}}", 'path is "/a/<b/c>/d"; variables and templates are not'),
        ("data: {prepared: '%OUT%/x'}", 'data.prepared is "%OUT%/x"; variables and templates are not'),
        (r"storage: \\host\share", "that is a path of Windows: give the path on this host"),
        ("storage: \u201c./runs\u201d", "in typographic quotes; use ' or \""),
        ("storage: ./runs\u200b", "with the invisible character U+200B; remove it"),
        ('storage: "a\\0b"', "with the invisible character U+0000; remove it"),
        ("storage: ~nosuchuser/x", 'storage is "~nosuchuser/x"; the home directory of that user'),
        ("storage: obs://bucket/x", "that is a URL: mount or download it"),
        ("storage: no", "storage is no, which YAML reads as false; put it in quotes"),
        ("storage: 1e3", "storage is 1e3, which YAML reads as a number; put it in quotes"),
        ("storage: " + "x" * 200_000, "... (200002 characters); a text may have 4096 characters"),
        *(
            (f'storage: "./ru{sign}ns"', f"with the invisible character U+{ord(sign):04X}; remove it")
            for sign in "\u00ad\u034f\u061c\u180e\u2061\u206f\u3164\ufff9\U000e0041"
        ),
        ("storage: |\n  ./runs", "which ends with a line break; write it on one line, or a block with |-"),
        ("storage: C:\\runs", 'storage is "C:\\\\runs"; that is a path of Windows: give the path on this host'),
        ("train: {lr: 0,004}", "train.004 is not a key of a job (value null); a comma begins another key"),
        ("train: {epochs:5}", "train.epochs:5 is not a key of a job (value null); put a space after epochs:"),
        ("train: epochs:5", 'train is "epochs:5"; put an ASCII colon and a space after epochs'),
        ("train: epochs\uff1a5", "put an ASCII colon and a space after epochs"),
        ("train:\u00a0epochs: 5", "line 2 has U+00A0 (no-break space) where YAML takes only a space; type a space"),
        ("train: {epochs:\u00a05}", "line 2 has U+00A0 (no-break space) where YAML takes only a space"),
        ("storage: ./runs\u00a0# on NFS", "line 2 has U+00A0 (no-break space) where YAML takes only a space"),
        ('storage: "./runs"\u00a0# on NFS', "line 2 has U+00A0 (no-break space) where YAML takes only a space"),
        ("train\u200b: {epochs: 5}", "line 2 has the invisible character U+200B (zero width space); remove it"),
        ("train: {lr: '0,004'}", 'train.lr is "0,004"; write the number without a comma; a fraction has a point'),
        ("cluster: {workers: '2,4'}", 'cluster.workers is "2,4"; write a list: [2, 4]'),
        ("checkpoint: {every_s: 5 min}", 'every_s is "5 min"; write the number of seconds without a unit'),
        ("cluster: {cache: {limit_gb: 1TB}}", 'limit_gb is "1TB"; write the number of GB without a unit'),
        ("data: {max_bad_images: 2.5%}", 'max_bad_images is "2.5%"; write a share: 0.025'),
        ("train: {epochs: 010}", 'train.epochs is "010"; readers of YAML differ about a leading 0'),
        ("train: {epochs: 1:30}", 'train.epochs is "1:30"; readers of YAML differ about colons'),
        ("train: {batch: 1_000}", 'train.batch is "1_000"; that is text here: write 1000'),
        ("train: {seed: 0x1F}", 'train.seed is "0x1F"; that is text here: write 31'),
        ("train: {epochs: 1e3}", "train.epochs is 1000.0; write 1000, a whole number"),
        ("train: {epochs: 1e30}", "train.epochs is 1e+30; it must be a whole number"),
        ("train: {lr: 1e30}", "train.lr is 1e+30; it must be from 1e-12 to 10"),
        ("train: {beta2: 0.99999999}", "train.beta2 is 0.99999999; it must be from 0 to 0.999999"),
        ("cluster: {workers: 1000000000}", "cluster.workers is 1000000000; use a number from 1 to 10000, or"),
        ("data: {synthetic: {pairs: 1000000000}}", "data.synthetic.pairs is 1000000000; it must be at most"),
        ("checkpoint: {every_s: .inf}", "checkpoint.every_s is .inf; use seconds from 0 to a year, or auto"),
        ("cluster: {hosts: [{address: h, devices: {010: x}}]}", '"010" is no device id; write a whole'),
        ("cluster: {hosts: [{address: 10.0.0.300, devices: {0: x}}]}", "give an IPv4 address, as 10.0.0.1, or"),
        ("cluster: {hosts: [{address: 010.0.0.1, devices: {0: x}}]}", "give an IPv4 address, as 10.0.0.1, or"),
        ("cluster: {hosts: [{address: '10.0.0.1:22', devices: {0: x}}]}", "host alone, without a port"),
        ("cluster: {hosts: [{address: 0.0.0.0, devices: {0: x}}]}", "this one stands for all addresses"),
        (
            "cluster: {hosts: [{address: h, devices: {0: x}}, {address: Localhost, devices: {0: y}}]}",
            "hosts.1.address is Localhost, which every host calls itself; give the address at which",
        ),
        (
            "cluster: {hosts: [{address: 127.0.0.1, devices: {0: x}}, {address: localhost, devices: {0: y}}]}",
            "hosts.0.address is 127.0.0.1, which every host calls itself; give the address at which",
        ),
        (
            "cluster: {hosts: [{address: h, devices: {16: x, 1: y}}]}",
            "hosts.0.devices has the id 16; a host of 910b has the ids 0 to 15",
        ),
        ("cluster: {soc: 910a, hosts: [{address: h, devices: {8: x}}]}", "a host of 910a has the ids 0 to 7"),
        ("epochs: 3", "epochs is not a key of a job (value 3); did you mean train.epochs?"),
        ("train.epochs: 3", "train.epochs is not a key of a job (value 3); write `train:`, and below it"),
        ("train: {lr: inf}", 'train.lr is "inf"; it must be a number'),
        ("train: {lr: nan}", 'train.lr is "nan"; it must be a number'),
        ("cluster: {soc: 910B3}", 'cluster.soc is "910B3"; that chip is of the family 910b: write 910b'),
        ("cluster: {soc: 910}", 'cluster.soc is 910; '),
        ("cluster: {soc: Ascend 910}", 'cluster.soc is "Ascend 910"; write 910a for the first generation, 910b'),
        ("cluster: {soc: 910B}", 'cluster.soc is "910B"; write 910b for chips 910B1 to 910B4, or 910a for a 910B'),
        ("cluster: {soc: A3}", 'cluster.soc is "A3"; write a3'),
        ("cluster: {soc: a2}", 'cluster.soc is "a2"; A2 products have chips of the family 910b: write 910b'),
        ("data: {images: [x]}", 'data.images is ["x"]; it must be text: write "x", without the list'),
        ("data: {images: {a: b}}", "it must be text: give one value, and put it in quotes"),
        ("data: {split: {train_scenes: x}}", 'train_scenes is "x"; it must be a list: write ["x"]'),
        ("train: {lr: 1e\u22123}", "it has the sign U+2212 (MINUS SIGN): write 1e-3, in ASCII"),
    ],
)  # fmt: skip
def test_what_would_make_another_job_is_refused_with_its_line(job: Path, line: str, said: str) -> None:
    job.write_text(f"name: a\n{line}\n", encoding="utf-8")
    message = refused(job)
    assert message.startswith((f"{job} line 2: ", f"{job} line 2 has ")) and said in message
    assert len(message) < 400 and "\n" not in message


def test_a_folder_that_exists_may_look_like_a_placeholder(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "<a>" / "`b`_2").mkdir(parents=True)
    for given in ("<a>", f"{tmp_path}/<a>/new", "<a>/`b`_2/new", "./<a>/"):
        job.write_text(f"name: a\nstorage: {given}\n")
        assert load_spec(job).storage == given
    for given in ("<b>/new", "<a>/<new>", "<a>/`b`_3", "<a>/new/%OUT%"):
        job.write_text(f"name: a\nstorage: '{given}'\n")
        assert "variables and templates are not expanded here" in refused(job)
