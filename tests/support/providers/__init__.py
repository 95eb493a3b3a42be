"""Data providers on loopback that keep to their contracts, and misbehave on demand.

    async with fake_hunter(limits={"*": [Limit(10, 1.0)]}) as hunter:
        ...  # ask hunter.url with hunter.key
    assert hunter.calls["/email-finder"] == 1
    assert hunter.credits_spent == 1

Every fake is a `FakeProvider` (server.py), which keys, meters, bills, delays, breaks, calls back
and counts; a provider adds only its words. People and companies are those of `world.py`. Broken
answers are in `faults.py`: `hunter.script("/email-finder", status(503), never())`.

To add one: a module with a subclass of FakeProvider that sets `name`, `base_path`, `limits` and
overrides `routes`, `key_of` and the refusals (`refuse_key`, `refuse_rate`, `refuse_credits`,
`no_route`), as `hunter.py` does; an alias `fake_thing = FakeThing`; a line in `__main__.py`'s
table. By hand: `python -m tests.support.providers --help`.
"""
