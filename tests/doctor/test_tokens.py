"""What the doctor says where a server asks for tokens."""

from tests.cli.test_token import guard, make
from tests.support.doctor import Doctor
from tests.support.installation import Installation
from tests.support.tokens import key_file


def test_a_token_lets_it_through(installation: Installation, doctor: Doctor) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    token = make(installation, "--channel", "aphlict-doctor-*")
    diagnosis = doctor.visit(installation, "--token", token)
    assert diagnosis.status == 0
    for check in ("keys", "delivery", "polling", "events"):
        assert [each["verdict"] for each in diagnosis.of(check)] == ["ok"]


def test_without_a_token_it_says_how_to_make_one(installation: Installation, doctor: Doctor) -> None:
    guard(installation, key_file(installation.folder))
    installation.start()
    doctor.visit(installation).expect("commands", "requires a token", "--token", "aphlict-doctor-*")
    wrong = make(installation, "--channel", "demo")
    doctor.visit(installation, "--token", wrong).expect("commands", "does not allow the channel", "--token")
    doctor.visit(installation, "--token", "a.b.c").expect("upgrade", "401", "--token")


def test_a_key_that_cannot_be_used(installation: Installation, doctor: Doctor) -> None:
    guard(installation, key_file(installation.folder, b"short"))
    diagnosis = doctor.visit(installation)
    assert diagnosis.status == 77
    assert diagnosis.first["check"] == "keys"
    assert "a secret of at least 32 bytes" in diagnosis.first["says"]
