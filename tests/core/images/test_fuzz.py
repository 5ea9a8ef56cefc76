from tests.core.images.fuzz import damaged, memory, seeds, try_all


def test_seeded_damage_ends_in_pixels_or_an_image_error() -> None:
    files = seeds()
    whole = try_all((str(number), data) for number, data in enumerate(files))
    assert whole.faults == []
    assert whole.ends == {"decoded": len(files)}
    before = memory()
    found = try_all((f"damaged {number}", data) for number, data in enumerate(damaged(files, 150)))
    assert found.faults == []
    assert memory() - before < 100
