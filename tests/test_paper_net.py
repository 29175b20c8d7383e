import pytest

from pipeline.paper.net import PRINTED, full_size_table, paper_shapes, shapes

CROPS = (67, 99, 131, 163, 195, 227)


def test_with_groups_it_has_60965224_parameters_and_without_62378344() -> None:
    assert sum(shape.parameters for shape in paper_shapes()) == 60_965_224
    assert sum(shape.parameters for shape in paper_shapes("joined")) == 62_378_344


def test_the_maps_are_55_27_13_and_6() -> None:
    conv1, conv2, conv3, conv4, conv5, *_ = paper_shapes()
    assert [conv1.side, conv1.pooled_side, conv2.side, conv2.pooled_side] == [55, 27, 27, 13]
    assert [conv3.side, conv4.side, conv5.side, conv5.pooled_side] == [13, 13, 13, 6]


def test_it_has_the_papers_650_thousand_neurons_and_figure_2_counts_conv1_wrongly() -> None:
    rows = {row["layer"]: row for row in full_size_table()}
    assert round(sum(row["neurons"] for row in rows.values()), -4) == 660_000
    wrong = [name for name, row in rows.items() if row["neurons"] != row["figure2_neurons"]]
    assert wrong == ["conv1"]
    assert rows["conv1"]["neurons"] == 55 * 55 * 96
    assert rows["conv1"]["figure2_neurons"] == 253_440


def test_one_image_takes_724_million_multiply_adds_and_1135_million_without_groups() -> None:
    assert sum(shape.multiply_adds for shape in paper_shapes()) == 724_406_816
    assert sum(shape.multiply_adds for shape in paper_shapes("joined")) == 1_135_256_096


@pytest.mark.parametrize("crop_px", CROPS)
def test_at_every_accepted_crop_both_poolings_give_maps_of_equal_size(crop_px: int) -> None:
    overlapping, plain = (
        shapes(PRINTED.model_copy(update={"crop_px": crop_px, "pool_px": pool_px}), 1000) for pool_px in (3, 2)
    )
    assert [shape.pooled_side for shape in overlapping] == [shape.pooled_side for shape in plain]


@pytest.mark.parametrize("sixteenths", range(1, 17))
def test_at_every_accepted_width_each_layer_splits_into_its_groups(sixteenths: int) -> None:
    for shape in shapes(PRINTED.model_copy(update={"width": sixteenths / 16}), 1000):
        assert shape.maps == 1000 or shape.maps == shape.layer.kernels * sixteenths / 16
        assert shape.maps % 2 == 0
        assert shape.maps_in % shape.groups == 0
