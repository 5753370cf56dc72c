"""`rank-table show`: what is drawn."""

import json
import re

from orchestrator.cli.commands import rank_table
from tests.unit import rank_table_cases
from tests.unit.rank_table_command import run, this_host


def test_a_table_is_drawn_with_hosts_groups_and_ranks(tmp_path, monkeypatch):
    this_host(tmp_path, monkeypatch, soc="a3", devices=[2, 3], pod="7")
    out = tmp_path / "hccl.json"
    run("build", "--soc", "a3", "--address", "172.16.0.9", "--out", out)
    drawn = run("show", out).output
    assert "version 1.2, 2 ranks on 1 server(s)" in drawn
    assert "super pod 7" in drawn
    assert "server 7/172.16.0.9 (172.16.0.9), devices {2,3}" in drawn
    assert "192.168.1.4" in drawn


def test_backup_addresses_are_drawn_and_brackets_are_no_markup(tmp_path):
    table = rank_table_cases.one(name="[red]rack[/")
    table["server_list"][0]["device"][0] |= {"backup_device_ip": "192.168.0.2", "[b]": "[/]"}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(table))
    drawn = run("show", path).output
    assert "server [red]rack[/, devices {0,1}" in drawn
    assert "backup_device_ip" in drawn and "[b]" in drawn and "[/]" in drawn


def test_control_characters_of_a_table_do_not_reach_the_terminal(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(rank_table_cases.one(name="a\x1b[2Jb")))
    drawn = run("show", path).output
    assert "\x1b[2J" not in drawn and "a\\x1b[2Jb" in drawn


def test_a_big_table_has_the_same_columns_without_boxes(tmp_path, monkeypatch):
    table = rank_table_cases.one(name="[red]rack[/")
    table["server_list"][0]["device"][0] |= {"backup_device_ip": "192.168.0.2", "[b]": "a\x1b[2Jb"}
    path = tmp_path / "t.json"
    path.write_text(json.dumps(table))

    def words():
        return re.findall(r"[^\s\u2500-\u257f]+", run("show", path).output)

    boxed = words()
    monkeypatch.setattr(rank_table, "_MOST_BOXED", 1)
    assert words() == boxed
    assert "\u2503" not in run("show", path).output


def test_the_name_of_a_table_is_drawn_as_it_is(tmp_path):
    path = tmp_path / "[red]:key:.json"
    path.write_text(json.dumps(rank_table_cases.one()))
    assert run("show", path).output.startswith("[red]:key:.json: version")
