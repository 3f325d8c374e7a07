import pytest

from storage.environment import SecretGivenTwice, SecretUnreadable, read_secret_files


def test_a_secret_in_a_file_is_put_under_its_plain_name(tmp_path):
    (tmp_path / "url").write_text("sqlite:///x\n")
    environment = {"DISP_DATABASE_URL_FILE": str(tmp_path / "url")}
    read_secret_files(environment)
    read_secret_files(environment)
    assert environment["DISP_DATABASE_URL"] == "sqlite:///x"


def test_the_object_stores_secret_is_read_too_and_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "key").write_text("k")
    environment = {
        "DISP_S3_SECRET_ACCESS_KEY_FILE": str(tmp_path / "key"),
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "POSTGRES_PASSWORD_FILE": "/nowhere",
    }
    read_secret_files(environment)
    assert environment["DISP_S3_SECRET_ACCESS_KEY"] == "k"
    assert "AWS_SHARED_CREDENTIALS" not in environment and "POSTGRES_PASSWORD" not in environment


def test_a_secret_given_in_two_ways_is_refused_without_being_shown(tmp_path):
    (tmp_path / "url").write_text("hunter2")
    environment = {"DISP_BROKER_URL_FILE": str(tmp_path / "url"), "DISP_BROKER_URL": "other"}
    with pytest.raises(SecretGivenTwice) as caught:
        read_secret_files(environment)
    assert "DISP_BROKER_URL" in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SecretUnreadable, match="DISP_BROKER_URL_FILE"):
        read_secret_files({"DISP_BROKER_URL_FILE": str(tmp_path / "missing")})
