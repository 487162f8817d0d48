from __future__ import annotations

import colorsys
import itertools

import pytest
import torch

from semi_med.data.augment import Augment, View
from semi_med.data.color_jitter import ColorJitter

OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey_chance": 0.0, "blur_chance": 0.0}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "sd": (58.395, 57.12, 57.375)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one(image, *, seed=0, **settings):
    """The changed image, and what was drawn; nothing is done but what the settings say, and that always."""
    jitter = ColorJitter(**{**OFF, "chance": 1.0, **settings})
    drawn = jitter.draw(len(image), image.dim() - 2, generator(seed))
    return jitter.apply(image, drawn), drawn


def picture(*shape, channels=3, count=2, seed=3):
    """Values from 0 to 1, with both ends in every image, so that its own range is that of the picture."""
    image = torch.rand(count, channels, *shape, generator=generator(seed))
    image.flatten(2)[..., 0], image.flatten(2)[..., 1] = 0, 1
    return image


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_brightness_multiplies_and_is_cut_off(shape):
    image = picture(*shape)
    out, drawn = one(image, colors=True, brightness=0.5)
    for b in range(2):
        assert 0.5 <= float(drawn.amounts[b, 0]) <= 1.5
        assert torch.allclose(out[b], (image[b] * drawn.amounts[b, 0]).clamp(0, 1), atol=1e-6)


def test_contrast_of_colours_is_about_the_mean_of_grey():
    image = picture(5, 7)
    out, drawn = one(image, colors=True, contrast=0.5)
    for b in range(2):
        mean = (0.299 * image[b, 0] + 0.587 * image[b, 1] + 0.114 * image[b, 2]).mean()
        wanted = (mean + drawn.amounts[b, 1] * (image[b] - mean)).clamp(0, 1)
        assert torch.allclose(out[b], wanted, atol=1e-6)


def test_saturation_is_about_grey():
    image = picture(5, 7)
    out, drawn = one(image, colors=True, saturation=0.5)
    for b in range(2):
        grey = 0.299 * image[b, 0] + 0.587 * image[b, 1] + 0.114 * image[b, 2]
        assert torch.allclose(out[b], (grey + drawn.amounts[b, 2] * (image[b] - grey)).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_hue_turns_the_colours_of_the_hsv_cone(seed):
    image = picture(4, 5)
    image[:, :, 1, 1] = 0.3  # grey has no hue
    out, drawn = one(image, colors=True, hue=0.5, seed=seed)
    for b, i, j in itertools.product(range(2), range(4), range(5)):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[b, :, i, j].tolist())
        wanted = colorsys.hsv_to_rgb((hue + float(drawn.amounts[b, 3])) % 1, saturation, value)
        assert out[b, :, i, j].tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_four_are_done_in_the_order_that_was_drawn():
    image, orders = picture(3, 4, count=40), set()
    out, drawn = one(image, colors=True, brightness=0.5, contrast=0.5)
    for b in range(40):
        order = [place for place in drawn.order[b].tolist() if place < 2]
        orders.add(tuple(order))
        unit = image[b]
        for place in order:
            grey = (0.299 * unit[0] + 0.587 * unit[1] + 0.114 * unit[2]).mean() if place else torch.zeros(())
            unit = (grey + drawn.amounts[b, place] * (unit - grey)).clamp(0, 1)
        assert torch.allclose(out[b], unit, atol=1e-6)
    assert orders == {(0, 1), (1, 0)}


def test_grey_has_three_equal_colours():
    image = picture(5, 7)
    out, _ = one(image, colors=True, grey_chance=1.0)
    grey = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    assert all(torch.allclose(out[:, c], grey, atol=1e-6) for c in range(3))


def test_the_scale_of_the_bytes_is_undone_and_done_again():
    image = picture(5, 7)
    mean, sd = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1) for key in ("mean", "sd"))
    settings = {"colors": True, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.25, "grey_chance": 0.5}
    plain, _ = one(image, **settings, mean=(0.0, 0.0, 0.0), sd=(1.0, 1.0, 1.0), full=1.0)
    normalised, _ = one((255 * image - mean) / sd, **settings, **IMAGENET)
    assert torch.allclose((normalised * sd + mean) / 255, plain, atol=1e-5)


def test_without_a_scale_a_picture_is_changed_on_its_own_range_of_all_colours_together():
    image = picture(5, 7)
    plain, _ = one(image, colors=True, brightness=0.5, hue=0.25)
    stretched, _ = one(image * 7 - 2, colors=True, brightness=0.5, hue=0.25)
    assert torch.allclose((stretched + 2) / 7, plain, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_that_are_no_colours_keep_apart_and_have_brightness_contrast_and_blur_only(shape, channels):
    image = picture(*shape, channels=channels)
    out, drawn = one(image, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, grey_chance=1.0)
    for b, c in itertools.product(range(2), range(channels)):
        unit = image[b, c]
        for place in (place for place in drawn.order[b].tolist() if place < 2):
            mean = unit.mean() if place else 0
            unit = (mean + drawn.amounts[b, place] * (unit - mean)).clamp(0, 1)
        assert torch.allclose(out[b, c], unit, atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 6)])
def test_only_images_that_are_drawn_are_blurred(shape):
    image = picture(*shape, channels=1, count=40)
    out, drawn = one(image, chance=0.0, blur_chance=0.5)
    blurred = drawn.sigma > 0
    assert 0.3 < float(blurred.float().mean()) < 0.7
    assert 0.1 <= float(drawn.sigma[blurred].min()) <= float(drawn.sigma.max()) <= 2.0
    assert torch.equal(out[~blurred], image[~blurred])
    assert (out[blurred].flatten(1).std(1) < image[blurred].flatten(1).std(1)).all()


def test_changes_come_with_the_published_chances():
    drawn = ColorJitter(colors=True).draw(4000, 2, generator())
    assert float(drawn.jittered.float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float(drawn.grey.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float((drawn.sigma > 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    low, high = drawn.amounts.amin(0).tolist(), drawn.amounts.amax(0).tolist()
    assert low == pytest.approx([0.5, 0.5, 0.5, -0.25], abs=0.01)
    assert high == pytest.approx([1.5, 1.5, 1.5, 0.25], abs=0.01)


def test_an_image_that_nothing_was_drawn_for_stays_bit_for_bit():
    image = picture(5, 7) * 3 - 1
    out, _ = one(image, colors=True, chance=0.0)
    assert torch.equal(out, image)


def test_a_constant_image_stays_finite():
    out, _ = one(torch.full((2, 3, 4, 4), 0.3), colors=True, brightness=0.5, hue=0.25, contrast=0.5, saturation=0.5)
    assert torch.isfinite(out).all()


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="give both or none"):
        ColorJitter(mean=(0.5,))
    with pytest.raises(ValueError, match="red, green and blue, the image has 1 channels"):
        one(picture(4, 4, channels=1), colors=True)


# --- In a view ----------------------------------------------------------------------------------------------------


def raw(shape, count=3):
    return {
        "context": torch.rand(count, 3, *shape, generator=generator(1)),
        "label_context": torch.randint(0, 2, (count, 1, *shape), generator=generator(2)).to(torch.uint8),
        "margin": torch.zeros(count, len(shape), 2, dtype=torch.int64),
    }


@pytest.mark.parametrize("shape", [(8, 10), (8, 10, 6)])
def test_two_strong_views_lie_where_the_weak_one_lies_and_differ_from_it_and_each_other(shape):
    crop = tuple(s - 2 for s in shape)
    strong = ColorJitter(colors=True, chance=1.0)
    view = View(crop, Augment(flip_axes=[0]), intensity_on="image", strong=strong, strong_views=2)
    out, again = view(raw(shape), generator()), view(raw(shape), generator())
    plain = View(crop, Augment(flip_axes=[0]))(raw(shape), generator())
    assert torch.equal(out["weak"], plain["image"])
    assert torch.equal(out["label"], plain["label"])
    views = [out["weak"], out["image"], out["strong_2"]]
    for a, b in itertools.combinations(views, 2):
        assert (a - b).flatten(1).abs().amax(1).min() > 1e-3
    assert all(torch.equal(out[key], again[key]) for key in out)


def test_a_second_strong_view_has_intensities_of_its_own():
    view = View((8, 10), Augment(gain=0.5, chance=1.0), intensity_on="image", strong_views=2)
    out = view(raw((8, 10)), generator())
    gains = [(out[key] / out["weak"]).flatten(1).median(1).values for key in ("image", "strong_2")]
    assert (gains[0] - gains[1]).abs().min() > 1e-4


@pytest.mark.parametrize("settings", [{"strong": ColorJitter()}, {"strong_views": 2}])
def test_strong_views_want_intensities_on_the_image(settings):
    with pytest.raises(ValueError, match="intensity_on must be 'image' where strong views differ"):
        View((4, 4), **settings)


def test_three_strong_views_are_refused():
    with pytest.raises(ValueError, match="strong_views must be 1 or 2, not 3"):
        View((4, 4), intensity_on="image", strong_views=3)
