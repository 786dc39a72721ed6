"""Normal forms, hashes and pseudonyms of identifiers."""

import base64
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import EmptySubject, Invalid, LetheError, UnknownIdentifier
from service.subjects.identifiers import hashes, normalise, normalise_stored, pseudonym, subject_pseudonym


@pytest.mark.parametrize(
    ("kind", "value", "normal"),
    [
        ("email", "  Jane.Doe+x@Example.ORG ", "jane.doe+x@example.org"),
        ("phone", "+1 (415) 555-9317", "14155559317"),
        ("phone", "0049 30/123456", "4930123456"),
        ("subject_id", "  Cafe\u0301 ", "Café"),
        ("controller_customer_id", " AbC ", "AbC"),
        ("ios_advertising_id", "AB-CD", "ab-cd"),
    ],
)
def test_each_type_has_one_normal_form(kind: str, value: str, normal: str) -> None:
    assert normalise(kind, value) == normal
    assert normalise_stored(kind, value) == normal


@pytest.mark.parametrize("value", ["", "   ", "\u00a0"])
def test_an_empty_identifier_is_an_empty_subject(value: str) -> None:
    with pytest.raises(EmptySubject):
        normalise("subject_id", value)


@pytest.mark.parametrize(
    ("kind", "value"), [("email", "no-address"), ("email", "a b@c.org"), ("phone", "12"), ("phone", "call me")]
)
def test_a_value_that_breaks_its_type_is_refused_but_kept_when_it_is_in_the_data(kind: str, value: str) -> None:
    with pytest.raises(Invalid):
        normalise(kind, value)
    assert normalise_stored(kind, value) == value


def test_a_type_must_be_known_or_registered() -> None:
    with pytest.raises(UnknownIdentifier, match="loyalty_card"):
        normalise("loyalty_card", "7")
    assert normalise("loyalty_card", " 7 ", known={"loyalty_card"}) == "7"


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_no_error_quotes_a_value_or_something_that_is_no_type(kind: str, value: str) -> None:
    secret = "Jane" + value
    for place in ((secret, kind), ("email", secret.replace("@", "")), ("phone", secret)):
        with pytest.raises(LetheError) as caught:
            normalise(*place)
        assert "Jane" not in caught.value.detail


def test_digests_are_taken_as_hex_or_as_base64() -> None:
    digest = hashlib.sha256(b"jane@example.org").digest()
    assert normalise("email", digest.hex().upper(), "sha256") == digest.hex()
    assert normalise("email", base64.b64encode(digest).decode(), "sha256") == digest.hex()
    with pytest.raises(Invalid):
        normalise("email", "jane@example.org", "sha256")
    with pytest.raises(Invalid):
        normalise("email", digest.hex(), "md5")


def test_phone_digests_are_compared_with_and_without_the_plus() -> None:
    # The vector of California's DROP: SHA-256 of 4155559317, in base64.
    wanted = base64.b64decode("vGM7y5n+hBXRSEAklhHDPCbysyNgYTmXdMcagGUOY8E=").hex()
    assert wanted in hashes("phone", "4155559317", "sha256")
    assert hashlib.sha256(b"+4155559317").hexdigest() in hashes("phone", "4155559317", "sha256")


def test_pseudonyms_hang_on_type_form_value_and_installation(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = pseudonym("email", "jane@example.org")
    assert one == pseudonym("email", "jane@example.org")
    assert one != pseudonym("subject_id", "jane@example.org")
    assert one != pseudonym("email", "jane@example.org", "sha256")
    assert "jane" not in one
    monkeypatch.setenv("LETHE_MASTER_KEY", "ab" * 32)
    from service.settings import get_settings

    get_settings.cache_clear()
    assert one != pseudonym("email", "jane@example.org")


def test_a_subject_has_one_pseudonym_whatever_the_order(home: Path) -> None:
    assert subject_pseudonym(["a", "b"]) == subject_pseudonym(["b", "a", "a"])
    assert subject_pseudonym(["a"]) != subject_pseudonym(["a", "b"])
