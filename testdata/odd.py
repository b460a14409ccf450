"""Writes the requests, certificates and CRLs that the openssl command will not.

Usage: odd.py P256-KEY.pem, after regenerate has written csr/p256.der.
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
KEY = sys.argv[1]


# DER, as little of it as the cases below need.

def tlv(tag, *contents):
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def sequence(*items):
    return tlv(0x30, *items)


def set_of(*items):
    return tlv(0x31, *sorted(items))


def unsorted_set_of(*items):
    return tlv(0x31, *items)


def integer(value):
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def boolean(value):
    return tlv(0x01, b"\xff" if value else b"\x00")


def bit_string(content, unused_bits=0):
    return tlv(0x03, bytes([unused_bits]), content)


def enumerated(value):
    return tlv(0x0A, bytes([value]))


def octet_string(content):
    return tlv(0x04, content)


def utf8(text):
    return tlv(0x0C, text.encode("utf-8"))


def teletex(text):
    """As nearly everyone fills a TeletexString: with Latin-1."""
    return tlv(0x14, text.encode("latin-1"))


def utc_time(text):
    return tlv(0x17, text.encode("ascii"))


def generalized_time(text):
    return tlv(0x18, text.encode("ascii"))


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for arc in [40 * first + second, *rest]:
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 0x7F)
        content += bytes(reversed(digits))
    return tlv(0x06, content)


# Names, extensions and attributes.

def common_name(value):
    return sequence(oid("2.5.4.3"), value)


def organization(value):
    return sequence(oid("2.5.4.10"), value)


def organizational_unit(value):
    return sequence(oid("2.5.4.11"), value)


def name(*parts):
    return sequence(*map(set_of, parts))


def extension(dotted, value, *critical):
    return sequence(oid(dotted), *critical, octet_string(value))


def attribute(dotted, value):
    return sequence(oid(dotted), set_of(value))


def extension_request(*extensions):
    return attribute("1.2.840.113549.1.9.14", sequence(*extensions))


CRITICAL = boolean(True)
CA_TRUE = sequence(boolean(True))
BASIC_CONSTRAINTS = "2.5.29.19"
DIGITAL_SIGNATURE = extension("2.5.29.15", bit_string(b"\x80", 7), CRITICAL)
CERT_AND_CRL_SIGN = extension("2.5.29.15", bit_string(b"\x06", 1), CRITICAL)
CLIENT_AUTH = extension("2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.2")), CRITICAL)

KEY_CERT_SIGN = extension("2.5.29.15", bit_string(b"\x04", 2), CRITICAL)
SERVER_AND_CLIENT_AUTH = extension(
    "2.5.29.37", sequence(oid("1.3.6.1.5.5.7.3.1"), oid("1.3.6.1.5.5.7.3.2"))
)
KEY_ID = b"\xa1" * 20

DEVICE = name(common_name(utf8("device-1")), organizational_unit(utf8("factory")))
ROOT = name(common_name(utf8("Test Root")))
FACTORY_CA = name(common_name(utf8("Factory-CA")), organizational_unit(utf8("factory")))


# Signing, with the openssl command.

def openssl(*arguments, stdin=b""):
    return subprocess.run(
        ["openssl", *arguments], input=stdin, stdout=subprocess.PIPE, check=True
    ).stdout


PUBLIC_KEY = openssl("pkey", "-in", KEY, "-pubout", "-outform", "DER")
ECDSA_WITH_SHA256 = sequence(oid("1.2.840.10045.4.3.2"))


def signed(body):
    signature = openssl("dgst", "-sha256", "-sign", KEY, stdin=body)
    return sequence(body, ECDSA_WITH_SHA256, bit_string(signature))


def request_body(subject=DEVICE, public_key=PUBLIC_KEY, attributes=(), version=0):
    return sequence(
        integer(version), subject, public_key, tlv(0xA0, *sorted(attributes))
    )


def request(**fields):
    return signed(request_body(**fields))


V3 = tlv(0xA0, integer(2))
NOT_BEFORE = utc_time("240101000000Z")
NOT_AFTER = utc_time("491231235959Z")
ROOT_EXTENSIONS = (
    extension(BASIC_CONSTRAINTS, CA_TRUE, CRITICAL),
    CERT_AND_CRL_SIGN,
)


def certificate(
    subject=ROOT, serial=1, not_after=NOT_AFTER, version=V3, extensions=ROOT_EXTENSIONS
):
    """A self-signed one. Version 1 has neither a version nor extensions."""
    return signed(
        sequence(
            version,
            integer(serial),
            ECDSA_WITH_SHA256,
            subject,
            sequence(NOT_BEFORE, not_after),
            subject,
            PUBLIC_KEY,
            tlv(0xA3, sequence(*extensions)) if extensions else b"",
        )
    )


def crl_entry(serial, *extensions, reason=None):
    if reason is not None:
        extensions = (reason_code(enumerated(reason)), *extensions)
    return sequence(
        integer(serial), THIS_UPDATE, sequence(*extensions) if extensions else b""
    )


def reason_code(value):
    return extension("2.5.29.21", value)


def crl_number(number):
    return extension("2.5.29.20", integer(number))


THIS_UPDATE = utc_time("260101000000Z")
IN_A_QUARTER = utc_time("260101001500Z")
AUTHORITY_KEY = extension("2.5.29.35", sequence(tlv(0x80, KEY_ID)))
REVOKED = (crl_entry(1, reason=9),)
FOREIGN = "1.3.6.1.4.1.32473.2"


def crl(
    entries=REVOKED,
    extensions=(AUTHORITY_KEY, crl_number(1)),
    issuer=FACTORY_CA,
    next_update=IN_A_QUARTER,
    algorithm=ECDSA_WITH_SHA256,
):
    return signed(
        sequence(
            integer(1),
            algorithm,
            issuer,
            THIS_UPDATE,
            next_update,
            sequence(*entries),
            tlv(0xA0, sequence(*extensions)) if extensions else b"",
        )
    )


# The cases.

def unsorted_rdn():
    """A SET OF in DER is sorted, and OU sorts first here. A client may
    write its own in the order given; a server that sorts the SET before it checks
    the signature, or before it copies the subject, breaks it."""
    rdn = unsorted_set_of(
        common_name(utf8("device-1")), organizational_unit(utf8("factory"))
    )
    return request(subject=sequence(rdn))


def ml_dsa_65():
    """Filler of the right sizes: the key must be refused for its algorithm,
    before anyone tries to make sense of it or of the signature."""
    algorithm = sequence(oid("2.16.840.1.101.3.4.3.18"))
    public_key = sequence(algorithm, bit_string(b"\xa5" * 1952))
    return sequence(
        request_body(public_key=public_key), algorithm, bit_string(b"\x5a" * 3309)
    )


def change_subject_name():
    """RFC 6402 section 2.8: the device asks, in an attribute, for a subject
    other than the one in the request. A server that does not look at the
    attribute issues for the old name and the device takes it for the new."""
    new_subject = name(
        common_name(utf8("device-2")), organizational_unit(utf8("factory"))
    )
    return request(
        attributes=[attribute("1.3.6.1.5.5.7.7.36", sequence(new_subject))]
    )


def two_extension_requests():
    """Readers differ on which one counts, so one may check what another
    issues. Each alone would be allowed."""
    return request(
        attributes=[
            extension_request(DIGITAL_SIGNATURE),
            extension_request(CLIENT_AUTH),
        ]
    )


def deep_nesting():
    """A parser that recurses without a limit overflows its stack here."""
    nested = b""
    for _ in range(10_000):
        nested = sequence(nested)
    return nested


def huge_length():
    """A parser that allocates what the header claims asks for 4 GiB."""
    return bytes.fromhex("30 84 ff ff ff ff") + integer(0)


def broken_signature(whole):
    """The last byte is inside the ECDSA s, so all of it still parses."""
    return whole[:-1] + bytes([whole[-1] ^ 1])


p256 = (HERE / "csr/p256.der").read_bytes()

REQUESTS = {
    "unsorted-rdn": unsorted_rdn(),
    "trailing-byte": p256 + b"\x00",
    "truncated": p256[: len(p256) // 2],
    "not-der": b"This is not a certificate request.\n",
    "broken-signature": broken_signature(p256),
    "ml-dsa-65": ml_dsa_65(),
    "change-subject-name": change_subject_name(),
    "two-extension-requests": two_extension_requests(),
    "deep-nesting": deep_nesting(),
    "huge-length": huge_length(),
    "negative-version": request(version=-1),
}

CERTIFICATES = {
    # DER leaves a DEFAULT out. Some CAs write this one all the same, and a
    # strict parser refuses their certificates.
    "explicit-critical-false": certificate(
        extensions=[
            extension(BASIC_CONSTRAINTS, CA_TRUE, boolean(False)),
            CERT_AND_CRL_SIGN,
        ]
    ),
    # RFC 5280 allows 20 bytes. 20 random bytes with the top bit set take 21.
    "serial-21-bytes": certificate(serial=int("c3" * 20, 16)),
    "v1": certificate(version=b"", extensions=()),
    # The issuer of what this CA signs must be these bytes, not a UTF8String
    # that reads the same.
    "teletex-issuer": certificate(
        subject=name(
            organization(teletex("Werk S\u00fcd")), common_name(utf8("Test Root"))
        )
    ),
    # RFC 5280 section 4.1.2.5: "no well-defined expiration date". Adding
    # anything to it overflows a four-digit year.
    "not-after-9999": certificate(not_after=generalized_time("99991231235959Z")),
}

CRLS = {
    # Whose CRLs these are: like a Factory's root as fioctl makes it, it may
    # not sign any by its key usage.
    "root": certificate(
        subject=FACTORY_CA,
        extensions=[
            KEY_CERT_SIGN,
            SERVER_AND_CLIENT_AUTH,
            extension(BASIC_CONSTRAINTS, CA_TRUE, CRITICAL),
            extension("2.5.29.14", octet_string(KEY_ID)),
        ],
    ),
    # Field by field what Go's CreateRevocationList writes for fioctl.
    "fioctl": crl(
        entries=[
            crl_entry(int("c6" * 20, 16), reason=6),
            crl_entry(int("c8" * 20, 16), reason=8),
            crl_entry(int("c9" * 20, 16), reason=9),
        ]
    ),
    "odd-serials": crl(entries=[crl_entry(-1), crl_entry(0), crl_entry(1 << 160)]),
    "empty-list": crl(entries=[]),
    "no-extensions": crl(next_update=b"", extensions=()),
    "foreign-extensions": crl(
        entries=[crl_entry(1, extension(FOREIGN, utf8("why")), reason=0)],
        extensions=[extension(FOREIGN, utf8("what"))],
    ),
    "critical-extension": crl(
        extensions=[crl_number(1), extension(FOREIGN, utf8("what"), CRITICAL)]
    ),
    "critical-entry-extension": crl(
        entries=[crl_entry(1, extension(FOREIGN, utf8("why"), CRITICAL), reason=9)]
    ),
    "delta": crl(
        extensions=[crl_number(2), extension("2.5.29.27", integer(1), CRITICAL)]
    ),
    # onlyContainsUserCerts
    "distribution-point": crl(
        extensions=[
            crl_number(1),
            extension("2.5.29.28", sequence(tlv(0x81, b"\xff")), CRITICAL),
        ]
    ),
    "certificate-issuer": crl(
        entries=[
            crl_entry(1, extension("2.5.29.29", sequence(tlv(0xA4, ROOT)), CRITICAL))
        ]
    ),
    "repeated-extension": crl(extensions=[crl_number(1), crl_number(2)]),
    # Disabled or revoked, as one reads it.
    "two-reasons": crl(
        entries=[crl_entry(1, reason_code(enumerated(9)), reason=6)],
    ),
    "integer-reason": crl(entries=[crl_entry(1, reason_code(integer(9)))]),
    "inner-sha384": crl(algorithm=sequence(oid("1.2.840.10045.4.3.3"))),
    "byte-after-the-end": crl() + b"\x00",
    "flipped-bit": broken_signature(crl()),
    "other-issuer": crl(issuer=ROOT),
}

for folder, files in (
    ("csr", REQUESTS),
    ("certificate", CERTIFICATES),
    ("crl", CRLS),
):
    for file, content in files.items():
        (HERE / folder / f"{file}.der").write_bytes(content)
