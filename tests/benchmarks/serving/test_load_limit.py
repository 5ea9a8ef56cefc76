"""The generator against the echo server."""

from benchmarks.serving.load_limit import measure

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"


def test_the_generator_is_measured_with_replies_of_a_size() -> None:
    found = measure([REQUEST], 5_000, seconds=0.3)
    assert (found.request_bytes, found.reply_bytes) == (len(REQUEST), 5_000)
    assert found.per_second > 0
    assert 0 < found.cpu_us_per_request < 1e6 / found.per_second * 1.5
