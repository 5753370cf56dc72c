"""Turns started workers into a group: rendezvous, environment, rank table. Runs in the controller."""

from collections.abc import Sequence

from orchestrator.engine.config import MindSporeConfig
from orchestrator.engine.control.generation import Member
from orchestrator.engine.environment import environment_of
from orchestrator.engine.messages import GroupInfo
from orchestrator.engine.rank.start import join_group, open_rendezvous, preload
from orchestrator.engine.start.answers import Workers, answers_of
from orchestrator.engine.start.ascend import AscendStart, prepare_ascend


def start_group(
    workers: Workers, members: Sequence[Member], config: MindSporeConfig, info: GroupInfo
) -> AscendStart | None:
    """Make the workers the ranks of a group; returns the preparation on Ascend, None on CPU.

    All ranks enter the rendezvous at the same time, because a rank waits only seconds for each of the others.
    Raises RanksDidNotJoin, InputError if HCCL would refuse the group, or the error of a worker.
    """
    options, ranks = config.start_options, range(len(members))
    start = None if config.device == "cpu" else prepare_ascend(workers, members, config, info.generation)
    address = None
    if len(members) > 1 and config.resolved_rendezvous != "rank_table":
        others = {rank: workers.execute_single_async(rank, preload, options.preload) for rank in ranks[1:]}
        opening = workers.execute_single_async(0, open_rendezvous, info, len(members), options)
        address = answers_of({0: opening}, members, config.start_timeout_s)[0]
        answers_of(others, members, config.start_timeout_s)
    joins = {
        rank: workers.execute_single_async(
            rank,
            join_group,
            info,
            rank,
            environment_of(rank, members, options, address, None if start is None else start.rank_table_path),
            address,
            None if start is None else start.shares[rank],
            options,
        )
        for rank in ranks
    }
    answers_of(joins, members, config.start_timeout_s)
    return start
