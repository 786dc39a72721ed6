"""Identifiers of people: types, one normal form for each, and keyed pseudonyms.

Errors never quote a value, nor a type that does not look like one: callers mix the two up.
"""

import base64
import binascii
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Collection

from service.errors import EmptySubject, Invalid, UnknownIdentifier
from service.subjects import vault

HASHES = ("sha256", "sha1", "md5")
FORMATS = ("raw", *HASHES)
LONGEST = 1024

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEX_DIGITS = {"sha256": 64, "sha1": 40, "md5": 32}


def _text(value: str) -> str:
    return unicodedata.normalize("NFC", value).strip()


def _lower(value: str) -> str:
    return _text(value).lower()


def _email(value: str) -> str:
    normal = _lower(value)
    local, at, domain = normal.rpartition("@")
    if not (local and at and domain) or any(character.isspace() for character in normal):
        raise Invalid("an e-mail address looks like name@example.org")
    return normal


def _phone(value: str) -> str:
    # International digits without the plus sign, so that "+49 30 1", "0049-30-1" and "49301" are one number.
    normal = _text(value)
    digits = "".join(character for character in normal if character in "0123456789")
    if not 5 <= len(digits) <= 20 or re.search(r"[^0-9\s+()./-]", normal):
        raise Invalid("a phone number has 5 to 20 digits, with its country code first")
    return digits.removeprefix("00") if normal.startswith("00") else digits


TYPES: dict[str, Callable[[str], str]] = {
    "subject_id": _text,
    "email": _email,
    "phone": _phone,
    "controller_customer_id": _text,
    # Device and advertising ids of OpenDSR 2.0, section "identity types".
    "android_advertising_id": _lower,
    "android_id": _lower,
    "fire_advertising_id": _lower,
    "ios_advertising_id": _lower,
    "ios_vendor_id": _lower,
    "microsoft_advertising_id": _lower,
    "microsoft_publisher_id": _text,
    "roku_advertising_id": _lower,
    "roku_publisher_id": _text,
}


def is_type_name(name: str) -> bool:
    """Whether the text may name an identifier type."""
    return _NAME.fullmatch(name) is not None


def normalise(kind: str, value: str, form: str = "raw", *, known: Collection[str] = ()) -> str:
    """The normal form of an identifier; `known` are further types, registered with datasets.

    For a hashed form: the digest in lower-case hex (base64, as California's DROP writes it, is accepted for SHA-256).
    Raises UnknownIdentifier, EmptySubject or Invalid.
    """
    if kind not in TYPES and kind not in known:
        named = f" {kind!r}" if is_type_name(kind) else ""
        raise UnknownIdentifier(
            f"unknown identifier type{named}; known types are {', '.join(sorted({*TYPES, *known}))}"
        )
    if form not in FORMATS:
        raise Invalid(f"the format of an identifier is one of {', '.join(FORMATS)}")
    if len(value) > LONGEST:
        raise Invalid(f"an identifier has at most {LONGEST} characters")
    if not _text(value):
        raise EmptySubject("an identifier is empty")
    if form != "raw":
        return _digest_text(value.strip(), form)
    return TYPES.get(kind, _text)(value)


def normalise_stored(kind: str, value: str) -> str:
    """The normal form of a value found in a dataset: one that breaks the rules of its type is kept as trimmed text."""
    try:
        return TYPES.get(kind, _text)(value)
    except Invalid:
        return _text(value)


def _digest_text(value: str, form: str) -> str:
    if re.fullmatch(rf"[0-9a-fA-F]{{{_HEX_DIGITS[form]}}}", value):
        return value.lower()
    if form == "sha256" and (decoded := _decode_base64(value)) is not None and len(decoded) == 32:
        return decoded.hex()
    raise Invalid(f"a {form} identifier has {_HEX_DIGITS[form]} hex digits")


def _decode_base64(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def hashes(kind: str, normal: str, algorithm: str) -> set[str]:
    """The hex digests under which a normalised value may be asked for; phone numbers with and without the plus."""
    variants = {normal, f"+{normal}"} if kind == "phone" else {normal}
    return {hashlib.new(algorithm, text.encode(), usedforsecurity=False).hexdigest() for text in variants}


def pseudonym(kind: str, normal: str, form: str = "raw") -> str:
    """HMAC-SHA256 of type and normalised value under a key derived from the master key, in hex."""
    label = kind if form == "raw" else f"{kind}:{form}"
    return hmac.digest(vault.derive_key("pseudonyms"), f"{label}\0{normal}".encode(), "sha256").hex()


def subject_pseudonym(pseudonyms: Collection[str]) -> str:
    """One pseudonym for all identifiers of a request, whatever their order."""
    text = "\0".join(sorted(set(pseudonyms)))
    return hmac.digest(vault.derive_key("subjects"), text.encode(), "sha256").hex()
