"""The order of samples: one permutation per epoch, whole windows, the same for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdnet.data.sampler import epoch_order, in_scene_runs, slice_indices, slices_of_rank, steps_per_epoch
from sdnet.errors import InputError


def whole_epoch(num_samples: int, batch: int, slices: int, epoch: int = 0) -> np.ndarray:
    """Indices [steps, slices, batch]."""
    steps = steps_per_epoch(num_samples, batch * slices)
    return np.array(
        [
            [
                slice_indices(
                    epoch_order(num_samples, 3, epoch), batch=batch, slices=slices, step=step, slice_=s
                )
                for s in range(slices)
            ]
            for step in range(steps)
        ]
    )


@given(batch=st.integers(1, 9), slices=st.integers(1, 5), extra=st.integers(0, 60), epoch=st.integers(0, 3))
def test_an_epoch_shows_every_sample_and_its_last_step_wraps_to_its_start(batch, slices, extra, epoch):
    num_samples = batch * slices + extra
    seen = whole_epoch(num_samples, batch, slices, epoch).ravel()
    order = epoch_order(num_samples, 3, epoch)
    np.testing.assert_array_equal(seen, np.resize(order, seen.size))
    assert sorted(order) == list(range(num_samples))
    assert 0 <= seen.size - num_samples < batch * slices


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=60), st.integers(2, 7))
def test_a_run_holds_samples_of_one_scene_and_of_different_images_while_there_are_some(places, run):
    ground = np.array([(scene, 10 * scene + tile) for scene, tile in places])
    order = in_scene_runs(ground, run, 3, 0)
    assert sorted(order) == list(range(len(ground)))
    assert order.tolist() == in_scene_runs(ground, run, 3, 0).tolist()
    scenes, tiles = ground[order].T
    for scene in set(scenes):
        places_of_scene = np.flatnonzero(scenes == scene)
        runs = np.split(places_of_scene, np.flatnonzero(np.diff(places_of_scene) > 1) + 1)
        assert sum(len(found) % run != 0 for found in runs) <= 1  # only the last run is shorter
        in_each_image = np.unique(tiles[places_of_scene], return_counts=True)[1]
        if len(in_each_image) >= run and in_each_image.max() == 1:
            assert all(len(set(tiles[found[:run]])) == min(run, len(found)) for found in runs)


def test_runs_of_a_scene_come_in_another_order_in_each_epoch():
    ground = np.repeat(np.arange(20), 5)[:, None].repeat(2, axis=1)
    orders = {tuple(in_scene_runs(ground, 5, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


@given(world_size=st.integers(1, 12), slices=st.integers(1, 40))
def test_ranks_share_the_slices_without_gap_or_overlap_as_the_rule_says(world_size, slices):
    shares = [slices_of_rank(rank, world_size, slices) for rank in range(world_size)]
    assert [slice_ for share in shares for slice_ in share] == list(range(slices))
    assert all(s * world_size // slices == rank for rank, share in enumerate(shares) for s in share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_epochs_and_seeds_have_orders_of_their_own_and_repeat_theirs():
    orders = [epoch_order(500, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    epoch_order.cache_clear()
    assert epoch_order(500, 1, 1).tolist() == orders[3]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_stays_what_it_was_when_runs_were_saved():
    """A checkpoint names a step; another permutation would resume on other samples."""
    assert epoch_order(10, 0, 0).tolist() == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]


def test_a_shared_order_cannot_be_changed_by_who_reads_it():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(10, 0, 0)[0] = 1


def test_a_batch_above_the_data_is_refused_with_both_numbers():
    with pytest.raises(InputError, match=r"takes 64 samples and the data holds 63; lower the batch"):
        steps_per_epoch(63, 64)
    assert steps_per_epoch(64, 64) == 1
