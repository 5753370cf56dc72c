"""`sdnet.register` and `sdnet.match`: what they accept, and the one line for what they refuse."""

import numpy as np
import pytest

import sdnet
from sdnet.errors import InputError
from sdnet.registration.images import image_from_array
from sdnet.registration.transform import Transform, affine
from tests.made_pairs import pair

IMAGES = pair(320, np.array([[1, 0, 9.25], [0, 1, -6.5], [0, 0, 1.0]]))


def test_points_may_be_a_list() -> None:
    [found] = sdnet.match(*IMAGES, [[150, 150]], measure="cfog").sar
    assert np.abs(found - [143.5, 159.25]).max() < 1
    assert len(sdnet.match(*IMAGES, [], measure="cfog")) == 0


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([5, 5], r"points has shape \(2,\); give \[N, 2\]"),
        ([[1, 2, 3], [4, 5, 6]], r"points has shape \(2, 3\); give \[N, 2\]"),
        ([[150, 150], [np.nan, 5]], r"points has \(nan, 5.0\), which is not in an image"),
        ([[5, np.inf]], r"points has \(5.0, inf\), which is not in an image"),
        ([[10**30, 5]], r"points has \(1e\+30, 5.0\), which is not in an image"),
        ([["a", "b"]], r'points is \[\["a", "b"\]\]; give numbers \[N, 2\]'),
        ([[1, 2], [3]], r"points is \[\[1, 2\], \[3\]\]; give numbers"),
        ([[{}, None]], "points is .*; give numbers"),
    ],
)
def test_points_of_another_kind_are_refused_by_name(points, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sdnet.match(*IMAGES, points, measure="cfog")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [[[1]], None, "sar.png"])
def test_an_image_that_is_no_array_is_refused_by_name(image) -> None:
    with pytest.raises(InputError, match="sar is of type .*; give a numpy array"):
        sdnet.register(IMAGES[0], image)


def test_a_matrix_instead_of_a_transform_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="initial is of type ndarray; give a Transform"):
        sdnet.register(*IMAGES, initial=np.eye(3))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="transform is of type ndarray; give a Transform"):
        sdnet.match(*IMAGES, transform=np.eye(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "matrix", [np.full((3, 3), np.nan), np.zeros((3, 3)), np.eye(2), np.eye(3, dtype=int)]
)
def test_a_transform_that_maps_nothing_is_refused_with_its_matrix(matrix) -> None:
    with pytest.raises(InputError, match=r"initial has the matrix \[\[.*; give an invertible one") as caught:
        sdnet.register(*IMAGES, initial=Transform("affine", matrix))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [np.eye(3), np.eye(2), "x", None, [[1, 2, 3]], np.eye(3)[:, :2]])
def test_rows_of_another_shape_are_refused_with_their_value(rows) -> None:
    with pytest.raises(InputError, match=r"the matrix is .*; give its upper two rows, numbers \[2, 3\]"):
        affine(rows)


def test_a_path_instead_of_a_network_and_no_path_are_refused_by_type() -> None:
    for call in (sdnet.register, sdnet.match):
        with pytest.raises(InputError, match="net is of type str; give what sdnet.load returns"):
            call(*IMAGES, net="step_1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="net is of type NoneType; give what sdnet.load returns"):
        sdnet.describe(None, IMAGES[0], [[100, 100]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level is of type int; give a "):
        sdnet.match(*IMAGES, level=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="checkpoint is of type bytes; give a path"):
        sdnet.load(b"step_1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a path cannot contain a NUL character"):
        sdnet.load("step_1\0")


@pytest.mark.parametrize("bands", [1, 3])
def test_masked_pixels_are_empty(bands) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (200, 200, bands)).astype(np.uint16)
    mask = np.zeros(pixels.shape, bool)
    mask[:90, :, -1] = True
    found = image_from_array(np.ma.masked_array(pixels, mask))
    known = image_from_array(pixels, valid=~mask.any(axis=2))
    assert not found.valid[:90].any() and found.valid[90:].all()
    assert type(found.grey) is np.ndarray and (found.grey == known.grey).all()
    unmasked = image_from_array(np.ma.masked_array(pixels))
    assert (unmasked.valid == image_from_array(pixels).valid).all()


def test_masked_points_are_refused() -> None:
    points: np.ma.MaskedArray = np.ma.masked_array([[150.0, 150.0], [0, 0]], mask=[[False] * 2, [True] * 2])
    with pytest.raises(InputError, match="points has masked values; leave those points out"):
        sdnet.match(*IMAGES, points)


@pytest.mark.parametrize("kind", ["u2", "i2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(320, 320), (320, 320, 3)])
def test_both_byte_orders_give_the_same_image(kind, shape) -> None:
    pixels = np.random.default_rng(0).integers(1, 5000, shape)
    little, big = (image_from_array(pixels.astype(order + kind)) for order in "<>")
    assert (little.grey == big.grey).all() and (little.valid == big.valid).all()


@pytest.mark.parametrize("kind", ["float16", "int8", "int32", "bool", "complex64", "object"])
def test_other_samples_are_refused_with_those_that_are_read(kind) -> None:
    with pytest.raises(
        InputError, match=f"has pixels of {kind}; give uint8, uint16, int16, float32 or float64"
    ):
        image_from_array(np.ones((320, 320), kind))
