from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch: delen[train]")

from delen.bundle.manifest import (  # noqa: E402
    AudioPreprocessing,
    ImagePreprocessing,
    InputSpec,
    TextPreprocessing,
)
from delen.errors import InvalidInput  # noqa: E402
from multiexit_models.train.augment import (  # noqa: E402
    augment_audio,
    augment_images,
    augment_text,
    augmentation,
    shorten,
)
from multiexit_models.train.recipe import Recipe  # noqa: E402

IMAGES = InputSpec("uint8", (8, 10, 3), image=ImagePreprocessing("RGB", "bilinear"))
AUDIO = InputSpec("int16", (800,), audio=AudioPreprocessing(8000))
TEXT = InputSpec("uint8", (64,), text=TextPreprocessing("utf-8"))
TENSOR = InputSpec("float32", (4,))


def seeded(seed: int = 0):
    return torch.Generator().manual_seed(seed)


def as_text(row) -> str:
    return bytes(row.tolist()).rstrip(b"\0").decode("utf-8")


def texts(text: str, count: int, length: int):
    written = text.encode()
    row = torch.tensor(list(written) + [0] * (length - len(written)), dtype=torch.uint8)
    return row.repeat(count, 1)


def samples(input: InputSpec):
    generator = seeded(9)
    if input.text:
        return texts("a few words of café", 16, 64)
    values = torch.randint(0, 250, (16, *input.shape), generator=generator)
    return values.to(getattr(torch, input.dtype))


@pytest.mark.parametrize("input", [IMAGES, AUDIO, TEXT, TENSOR])
def test_shape_and_dtype_stay_and_the_same_seed_varies_alike(input: InputSpec) -> None:
    vary, batch = augmentation(input, Recipe(crop_padding=2)), samples(input)
    varied = vary(batch, seeded())
    assert varied.shape == batch.shape
    assert varied.dtype == batch.dtype
    assert torch.equal(varied, vary(batch, seeded()))
    if input is TENSOR:
        assert torch.equal(varied, batch)
    else:
        assert not torch.equal(varied, vary(batch, seeded(1)))


@pytest.mark.parametrize("padding", [-1, 8])
def test_padding_that_the_images_cannot_have_is_refused(padding: int) -> None:
    with pytest.raises(InvalidInput, match=f"crop_padding is {padding}.*8 x 10.*0 to 7"):
        augmentation(IMAGES, Recipe(crop_padding=padding))


def test_crops_are_shifted_pieces_of_their_own_image() -> None:
    images = torch.randint(0, 256, (32, 8, 6, 3), dtype=torch.uint8, generator=seeded(4))
    crops = augment_images(images, 2, False, seeded())
    padded = torch.nn.functional.pad(
        images.permute(0, 3, 1, 2).float(), (2,) * 4, mode="reflect"
    ).permute(0, 2, 3, 1)
    offsets = set()
    for crop, image in zip(crops, padded, strict=True):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if torch.equal(crop.float(), image[row : row + 8, column : column + 6])
        ]
        assert len(found) == 1, "a crop is one piece of its own padded image"
        offsets.update(found)
    assert len(offsets) > 5
    assert {row for row, _ in offsets} == {column for _, column in offsets} == set(range(5))


def test_some_crops_are_mirrored_and_none_without_padding_is_shifted() -> None:
    images = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(32, 5, 8, 3).contiguous()
    crops = augment_images(images, 0, True, seeded())
    mirrored = [torch.equal(crop, images[0].flip(1)) for crop in crops]
    kept = [torch.equal(crop, images[0]) for crop in crops]
    assert any(mirrored)
    assert any(kept)
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert torch.equal(augment_images(images, 0, False, seeded()), images)


def test_resize_keeps_dtype_ratio_and_a_flat_colour() -> None:
    images = torch.full((2, 8, 12, 3), 77, dtype=torch.uint8)
    assert torch.equal(shorten(images, 6), torch.full((2, 6, 9, 3), 77, dtype=torch.uint8))
    assert shorten(images, 8) is images


def test_silence_stays_silent() -> None:
    silence = torch.zeros(4, 100, dtype=torch.int16)
    assert torch.equal(augment_audio(silence, seeded()), silence)


def test_a_tone_changes_pitch_place_and_level_but_stays_a_tone() -> None:
    times = torch.arange(8000) / 8000
    tone = (8000 * torch.sin(2 * torch.pi * 500 * times)).to(torch.int16).repeat(64, 1)
    varied = augment_audio(tone, seeded()).float()
    spectrum = torch.fft.rfft(varied).abs()
    pitch = spectrum.argmax(dim=1)
    assert 445 <= pitch.min() < 470
    assert 530 < pitch.max() <= 555
    level = varied[:, 2000:6000].square().mean(1).sqrt()
    assert level.min() > 8000 / 2**0.5 / 2.1
    assert level.max() < 8000 / 2**0.5 * 2.2
    share = spectrum.square()[:, 440:560].sum(1) / spectrum.square().sum(1)
    assert share.min() > 0.8
    starts_silent = (varied[:, :100] == 0).all(1)
    assert 0 < starts_silent.sum() < 64


def test_the_loudest_recording_is_clipped_and_does_not_wrap() -> None:
    loud = torch.full((32, 400), 32767, dtype=torch.int16)
    middle = augment_audio(loud, seeded())[:, 100:300]
    assert (middle < 0).float().mean() < 0.01


def test_text_loses_few_words_and_characters_and_stays_utf8() -> None:
    sentence = "the naïve café of “Zürich” serves žluté dorty every single day of the week"
    varied = augment_text(texts(sentence, 200, 128), seeded())
    read = [as_text(row) for row in varied]
    assert any(text == sentence for text in read)
    assert any(text != sentence for text in read)
    left = [len(text) for text in read]
    assert 0.85 * len(sentence) < sum(left) / len(left) < 0.98 * len(sentence)
    for text in read:
        remaining = iter(sentence)
        assert all(character in remaining for character in text)


def test_text_of_one_word_is_never_lost_and_none_stays_none() -> None:
    words = augment_text(texts("a", 2000, 8), seeded())
    assert {as_text(row) for row in words} == {"a"}
    assert augment_text(texts("", 3, 8), seeded()).sum() == 0
