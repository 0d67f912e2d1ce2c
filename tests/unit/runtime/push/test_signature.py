"""Signatures of notifications."""

import base64
from dataclasses import replace

from hector.domain.ids import SessionKey
from hector.domain.notices import PushTarget
from hector.runtime.push.signature import key_of, notification_id, signed

TARGET = PushTarget(SessionKey("a", "u", "s"), "t", "c")


def test_a_signature_is_what_the_standard_says() -> None:
    # The example of Standard Webhooks' own documentation.
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_key_signs() -> None:
    one, two = b"1" * 24, b"2" * 24
    both = signed([one, two], "m", 1, b"")["webhook-signature"].split(" ")
    alone = [signed([key], "m", 1, b"")["webhook-signature"] for key in (one, two)]
    assert both == alone
    assert "webhook-signature" not in signed([], "m", 1, b"")


def test_a_notification_has_one_id_and_no_other_has_it() -> None:
    targets = [
        TARGET,
        TARGET._replace(turn_id="T"),
        TARGET._replace(config_id="C"),
        TARGET._replace(key=replace(TARGET.key, user_id="U")),
        TARGET._replace(key=replace(TARGET.key, agent_id="A")),
    ]
    ids = {notification_id(target, place) for target in targets for place in (4, 5)}
    assert len(ids) == 10
    assert notification_id(TARGET, 4) == notification_id(TARGET._replace(), 4)
    assert "." not in notification_id(TARGET, 4)


def test_a_key_is_the_bytes_behind_its_prefix() -> None:
    assert key_of("whsec_" + base64.b64encode(b"x" * 32).decode()) == b"x" * 32
