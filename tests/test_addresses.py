"""Addresses of object stores, and what is said of them, where no store is asked."""

import os
from pathlib import Path

import pytest
import yaml
from pyarrow import fs

import isthmus
from command_line import isthmus_in_process, told
from isthmus.data import open_table
from isthmus.data.tables.places.remote_file import told_fault
from isthmus.errors import ConfigError, IsthmusError, SchemaError
from isthmus.run.output import sending
from isthmus.run.output.sending import Target
from isthmus.schema.address import Address
from small_runs import settings

KEY, SECRET = "AKIAVERYPRIVATE", "not-for-any-eye"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


SECRETIVE = [
    f"s3://{KEY}:{SECRET}@shop/a.parquet",
    f"s3://{KEY}:x/{SECRET}@shop/a.parquet",
    f"s3://{SECRET}@shop/a.parquet",
    f"hdfs://me:{SECRET}@host:8020/a.parquet",
    f"abfs://box:{SECRET}@account.dfs.core.windows.net/a.parquet",
    f"s3://shop/a.parquet?access_key={KEY}&secret_key={SECRET}",
    f"s3://shop/a/*.parquet?endpoint_override=x&secret_key={SECRET}",
    f"https://shop.s3.amazonaws.com/a.parquet?X-Amz-Signature={SECRET}",
]


@pytest.mark.parametrize("source", SECRETIVE)
def test_an_address_with_a_credential_is_refused_and_never_repeated(source: str, tmp_path: Path):
    config = settings()
    config["data"]["table"] = source
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for refused, call in (
        (SchemaError, lambda: open_table(source)),
        (ConfigError, lambda: isthmus.load_config(config)),
        (ConfigError, lambda: isthmus.load_config(settings(), [f"data.table={source}"])),
    ):
        with pytest.raises(refused, match="address") as fault:
            call()
        assert SECRET not in str(fault.value)
    for words in (
        ("fit", tmp_path / "config.yaml", "--out", tmp_path / "run"),
        ("init", source, "--domain", "tab", "--label", "click", "-o", tmp_path / "new.yaml"),
    ):
        result = isthmus_in_process(*words)
        assert "address" in told(result)
        assert SECRET not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("given", [f"http://me:{SECRET}@127.0.0.1:1", "127.0.0.1:9000", "ftp://x"])
def test_an_endpoint_that_is_none_is_named_by_its_variable(
    given: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", given)
    with pytest.raises(SchemaError, match=r"AWS_ENDPOINT_URL_S3 must be http://") as fault:
        open_table("s3://shop/clicks")
    assert SECRET not in str(fault.value)


def test_what_a_store_says_is_told_without_what_the_environment_keeps():
    said = f"Azure: GET //me:pw@host/a?k={SECRET} failed for {KEY}\nmore"
    address = Address.of("gs://shop/a.parquet")
    assert address is not None
    assert str(told_fault(address, OSError(said))) == (
        "gs://shop/a.parquet must be within reach, got Azure: GET //***@host/a?k=*** failed for ***"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gs://shop/a.parquet", "google::cloud::Status(UNAVAILABLE: no OAuth2 access token)"),
        ("abfs://box@shop.dfs.core.windows.net/a.csv", "Unknown error: Failed to get token from"),
    ],
)
def test_a_store_without_a_token_asks_for_credentials(source: str, said: str):
    address = Address.of(source)
    assert address is not None
    fault = told_fault(address, OSError(said))
    assert isinstance(fault, SchemaError)
    assert str(fault).startswith(f"{source} must be open to the credentials of the environment (")
    assert str(fault).endswith("), got no access token")


def target(text: str) -> Target:
    address = Address.of(text)
    assert address is not None
    return Target(address)


@pytest.mark.parametrize("fails", [False, True])
def test_where_a_file_grows_under_its_name_it_gets_the_name_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
):
    disk = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(sending, "filesystem_of", lambda _: (disk, ""))
    (tmp_path / "out").mkdir()
    file = tmp_path / "file"
    if not fails:
        file.write_bytes(b"scores")
        target("hdfs://host:8020/out/scored.parquet").send(file)
        assert (tmp_path / "out" / "scored.parquet").read_bytes() == b"scores"
    else:
        with pytest.raises(IsthmusError):
            target("hdfs://host:8020/out/scored.parquet").send(file)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scored.parquet"] * (not fails)
