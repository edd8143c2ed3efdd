"""Tables and scored files on an object store, against a real S3 server on this machine."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import fs

import diagnosed
import isthmus
from command_line import isthmus_in_process, told
from isthmus.data import open_table
from isthmus.diagnosis.command import prepared
from isthmus.diagnosis.level import LEVELS
from isthmus.errors import RunError, SchemaError
from isthmus.run.output.sending import Target
from isthmus.schema.address import Address
from s3_server import Line, S3Server
from small_runs import clicks, settings, weights

KEY, SECRET = "AKIAVERYPRIVATE", "not-for-any-eye"
SRC = Path(isthmus.__file__).parents[1]

# Names below a folder. Those that begin with "." or "_" are no part of a table.
TREE = [
    "tab=home/day 1.parquet",
    "tab=home/day 2.parquet",
    "tab=search/day 1.parquet",
    "tab=search/deep/er/day 3.parquet",
    "tab=mail/day 1.parquet",
    "_logs/day 1.parquet",
    "tab=mail/.hidden/day 1.parquet",
    "tab=mail/_SUCCESS",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hive tree of `clicks`, one file a slice, in which the files hold no column ``tab``."""
    folder = tmp_path_factory.mktemp("tree") / "clicks"
    table = clicks().drop_columns(["tab"])
    for number, name in enumerate(TREE):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            pq.write_table(table.slice(240 * number, 240), path, row_group_size=100)
        else:
            path.touch()
    return folder


@pytest.fixture(scope="module")
def server(tree: Path) -> Iterator[S3Server]:
    """A server with the tree in the bucket ``shop``."""
    with S3Server.started() as started:
        started.ask("PUT", "shop")
        fs.copy_files(str(tree), "shop/clicks", destination_filesystem=started.files)
        yield started


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")


@pytest.fixture
def line(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with Line.opened(server.port) as opened:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{opened.port}")
        yield opened


def rows_of(source: str) -> pa.Table:
    table = open_table(source)
    return pa.Table.from_batches([block.batch for block in table.blocks(sorted(table.columns))])


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/",
        "/tab=home",
        "/tab=home/day 1.parquet",
        "/tab*/*.parquet",
        "/tab=*/day ?.parquet",
        "/tab=[hs]*/day 1.parquet",
        "/tab=[!h]*",
        "/tab=mail/**/*.parquet",
        "/**/tab=home/*",
        "/tab=search/**/day*.parquet",
        "/tab=search/**",
        "/tab=*/deep",
    ],
)
def test_globs_and_hive_folders_name_the_files_that_they_name_locally(tree: Path, pattern: str):
    local, remote = open_table(f"{tree}{pattern}"), open_table(f"s3://shop/clicks{pattern}")
    assert [part.name for part in remote.parts] == [part.name for part in local.parts]
    assert remote.columns == local.columns
    assert rows_of(f"s3://shop/clicks{pattern}").equals(rows_of(f"{tree}{pattern}"))


@pytest.mark.parametrize("name", ["a.csv", "b.csv.gz", "c"])
def test_csv_is_read_as_it_is_read_locally(tmp_path: Path, server: S3Server, name: str):
    path = tmp_path / name
    pyarrow.csv.write_csv(clicks().drop_columns(["history"]), path)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    fs.copy_files(str(path), f"shop/csv/{name}", destination_filesystem=server.files)
    assert open_table(f"s3://shop/csv/{name}").columns == open_table(path).columns
    assert rows_of(f"s3://shop/csv/{name}").equals(rows_of(str(path)))


@pytest.fixture(scope="module")
def large(server: S3Server) -> str:
    """12 row groups of 1.6 MB each, which no compression makes smaller."""
    rng = np.random.default_rng(0)
    table = pa.table({"x": rng.random(2_400_000), "id": pa.array(np.arange(2_400_000) % 7)})
    with server.files.open_output_stream("shop/large.parquet") as file:
        pq.write_table(table, file, row_group_size=200_000, compression="none")
    return "s3://shop/large.parquet"


def test_a_table_is_opened_and_known_by_its_ends_and_read_as_it_is_used(large: str, line: Line):
    table = open_table(large)
    (known,) = table.files
    assert line.received < 1_000_000
    assert known["path"] == large
    assert known["size"] > 19_000_000
    assert known["time"] > 1.7e18
    assert known["etag"].strip('"')
    before = pa.total_allocated_bytes()
    blocks = table.blocks(["x"], 10_000)
    first = next(blocks)
    assert first.batch.num_rows == 10_000
    assert line.received < 6_000_000
    held = [pa.total_allocated_bytes() - before for _ in blocks]
    assert max(held) < 8_000_000
    whole = open_table(large).fingerprint(verify_content=True)
    assert whole[0].pop("content")
    assert whole[0] == known


def test_a_changed_object_is_another_table(server: S3Server):
    def put(seed: int) -> dict[str, object]:
        with server.files.open_output_stream("shop/changing.parquet") as file:
            pq.write_table(pa.table({"x": np.random.default_rng(seed).random(50)}), file)
        (found,) = open_table("s3://shop/changing.parquet").files
        return {name: value for name, value in found.items() if name != "time"}

    assert put(0) == put(0)
    assert put(0) != put(1)


def test_a_run_on_a_store_is_the_run_on_local_files_and_keeps_no_secret(
    tree: Path, tmp_path: Path, server: S3Server
):
    runs = {}
    for where, table in (("local", f"{tree}/tab=*"), ("remote", "s3://shop/clicks/tab=*")):
        config = settings(epochs=1)
        config["data"]["table"] = table
        (tmp_path / f"{where}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        runs[where] = tmp_path / where
        result = isthmus_in_process("fit", tmp_path / f"{where}.yaml", "--out", runs[where])
        assert result.exit_code == 0, result.output
    local, remote = isthmus.Run.open(runs["local"]), isthmus.Run.open(runs["remote"])
    assert weights(local) == weights(remote)
    assert remote.config.data.table == "s3://shop/clicks/tab=*"
    answers = [
        isthmus_in_process("evaluate", runs["remote"], "--data", table, "--json", "-")
        for table in (f"{tree}/tab=*", "s3://shop/clicks/tab=*")
    ]
    assert answers[0].stdout == answers[1].stdout

    scored = isthmus_in_process(
        "predict", runs["remote"], "s3://shop/clicks/tab=*", "-o", "s3://shop/out/scored.parquet"
    )
    assert scored.exit_code == 0, scored.output
    assert "to s3://shop/out/scored.parquet" in scored.output
    isthmus_in_process("predict", runs["local"], f"{tree}/tab=*", "-o", tmp_path / "scored.parquet")
    with server.files.open_input_stream("shop/out/scored.parquet") as file:
        assert file.read() == (tmp_path / "scored.parquet").read_bytes()
    again = isthmus_in_process(
        "predict", runs["remote"], "s3://shop/clicks/tab=*", "-o", "s3://shop/out/scored.parquet"
    )
    assert told(again) == "file to write must not exist yet, got s3://shop/out/scored.parquet"

    for path in tmp_path.rglob("*"):
        for secret in (KEY, SECRET, f":{server.port}"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert KEY not in scored.output + answers[1].output


def test_a_diagnosis_reads_the_store_and_its_configs_name_it(tmp_path: Path, server: S3Server):
    with server.files.open_output_stream("shop/opposed.parquet") as file:
        pq.write_table(diagnosed.opposed(1_500), file)
    source = "s3://shop/opposed.parquet"
    quick = LEVELS["quick"]
    with prepared(diagnosed.settings(), source, tmp_path / "out", level=quick) as (study, _):
        assert study.original.data.table == source
        assert study.arms.dataset(0).domain_names == ("left", "right")


def test_the_config_of_init_names_the_table_as_it_was_given(tmp_path: Path):
    out = tmp_path / "config.yaml"
    result = isthmus_in_process(
        "init", "s3://shop/clicks/tab=*", "--domain", "tab", "--label", "click", "-o", out
    )
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(out.read_text())["data"]["table"] == "s3://shop/clicks/tab=*"
    assert isthmus.load_config(out).data.table == "s3://shop/clicks/tab=*"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://nobody/a.parquet", "in a bucket that exists, got no bucket 'nobody'"),
        ("s3://nobody/*.parquet", "in a bucket that exists, got no bucket 'nobody'"),
        ("s3://shop/no/such.parquet", "that exists, got s3://shop/no/such.parquet"),
        ("s3://shop/no/*.parquet", "at least one Parquet or CSV file, got none in s3://shop/no/*"),
        ("s3://shop/clicks//a", "no empty name between slashes, got s3://shop/clicks//a"),
        ("ftp://shop/a.parquet", "begin with one of s3://, gs://, hdfs://, abfs://, abfss://"),
        ("s3:///a.parquet", "must be s3://BUCKET/KEY"),
    ],
)
def test_what_is_not_there_is_named(source: str, words: str):
    with pytest.raises(SchemaError) as fault:
        open_table(source)
    assert words in str(fault.value)


def test_wrong_credentials_are_refused_by_the_server_and_named_by_their_variables(
    server: S3Server,
):
    server.ask("POST", "moto-api/reset-auth", "0")
    try:
        with pytest.raises(SchemaError, match="open to the credentials") as fault:
            open_table("s3://shop/clicks/tab=home/day 1.parquet")
    finally:
        server.ask("POST", "moto-api/reset-auth", "Infinity")
    assert "AWS_ACCESS_KEY_ID" in str(fault.value)
    assert KEY not in str(fault.value)


def test_no_credentials_are_named_by_their_variables(
    line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    line.answer_all("403 Forbidden")  # as S3 answers a request that nobody signed
    with pytest.raises(SchemaError) as fault:
        open_table("s3://shop/clicks/tab=home/day 1.parquet")
    assert str(fault.value) == (
        "s3://shop/clicks/tab=home/day 1.parquet must be open to the credentials of the environment"
        " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), got ACCESS_DENIED during"
        " HeadObject"
    )


def test_a_line_cut_in_the_middle_of_reading_is_no_damaged_file(large: str, line: Line):
    table = open_table(large)
    line.cut_after(3_000_000, of="received")
    with pytest.raises(RunError, match=f"{large} must be within reach, got NETWORK_CONNECTION"):
        list(table.blocks(["x"]))


def test_a_line_cut_while_csv_is_read_is_no_bad_csv(server: S3Server, line: Line):
    rows = "".join(f"{number},{number % 7}\n" for number in range(2_000_000))
    with server.files.open_output_stream("shop/long.csv") as file:
        file.write(f"a,b\n{rows}".encode())
    line.cut_after(6_000_000, of="received")
    with pytest.raises(RunError, match=r"s3://shop/long.csv must be within reach"):
        open_table("s3://shop/long.csv")


def test_a_damaged_object_is_named_by_its_address(server: S3Server):
    with server.files.open_output_stream("shop/torn.parquet") as file:
        file.write(b"PAR1" + bytes(5_000))
    with pytest.raises(SchemaError, match=r"s3://shop/torn.parquet must be a whole Parquet file"):
        open_table("s3://shop/torn.parquet")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three parts of an upload."""
    path = tmp_path_factory.mktemp("heavy") / "scored.parquet"
    path.write_bytes(np.random.default_rng(0).bytes(25_000_000))
    return path


def target(text: str) -> Target:
    address = Address.of(text)
    assert address is not None
    return Target(address)


def test_an_upload_of_which_one_part_fails_is_not_completed_from_the_others(
    heavy: Path, server: S3Server, line: Line
):
    sent = target("s3://shop/holed/scored.parquet")
    line.refuse(b"partNumber=2")
    with pytest.raises(RunError, match=r"s3://shop/holed/scored.parquet must be within reach"):
        sent.send(heavy)
    assert not [name for name in server.names("shop") if "holed" in name]
    sent = target("s3://shop/holed/scored.parquet")
    line.refuse(b"partNumber=9")
    sent.send(heavy)
    with server.files.open_input_stream("shop/holed/scored.parquet") as file:
        assert file.read() == heavy.read_bytes()


def test_an_upload_that_breaks_off_leaves_no_object(heavy: Path, server: S3Server, line: Line):
    sent = target("s3://shop/broken/scored.parquet")
    line.cut_after(12_000_000, of="sent")
    with pytest.raises(RunError, match=r"s3://shop/broken/scored.parquet must be within reach"):
        sent.send(heavy)
    assert not [name for name in server.names("shop") if "broken" in name]


@pytest.mark.soak
def test_a_process_killed_while_it_sends_leaves_no_object(
    heavy: Path, server: S3Server, line: Line
):
    line.stall_after(12_000_000)
    sender = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from isthmus.run.output.sending import Target\n"
            "from isthmus.schema.address import Address\n"
            "Target(Address.of('s3://shop/killed.parquet')).send(Path(sys.argv[1]))",
            str(heavy),
        ],
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    with sender:
        while not line.is_stalled:
            assert sender.poll() is None
            time.sleep(0.01)
        sender.kill()
    line.close()
    assert "shop/killed.parquet" not in server.names("shop")


def test_what_was_not_written_to_its_end_is_not_sent(server: S3Server):
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        target("s3://shop/half.parquet").written() as path,
    ):
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not path.parent.exists()
    assert "shop/half.parquet" not in server.names("shop")


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("s3://nobody/scored.parquet", "in a bucket that exists, got no bucket 'nobody'"),
        ("s3://shop", "a name behind the bucket, got s3://shop/"),
        (f"s3://me:{SECRET}@shop/scored.parquet", "must be s3://BUCKET/KEY"),
        ("s3://shop/scored.json", "must end in .parquet, .pq, .parq, .csv or .tsv"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_a_row_is_scored(
    out: str, words: str, run: Path
):
    assert words in (
        refusal := told(isthmus_in_process("predict", run, "s3://shop/clicks", "-o", out))
    )
    assert SECRET not in refusal


def test_resume_wants_a_file_of_this_machine(run: Path):
    words = ("predict", run, "s3://shop/clicks", "-o", "s3://shop/new.parquet", "--resume")
    assert told(isthmus_in_process(*words)) == (
        "--resume must have a file of this machine to go on with, got s3://shop/new.parquet;"
        " predict to a local file, or leave out --resume"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return isthmus.fit(
        settings(epochs=1), clicks(), out=tmp_path_factory.mktemp("run") / "run"
    ).path
