"""Feature sets as data sets of Parquet files, in a folder and on the Hub: pulled as they were pushed, or refused."""

import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from epalm.cache.blocks import read_values, require_values
from epalm.cache.exchange.parquet import decode_block, encode_block
from epalm.cache.exchange.published import PublishedSets
from epalm.cache.exchange.transfer import plan_transfer, run_transfer
from epalm.cache.feature_set import FeatureSet
from epalm.cache.store import Cache
from epalm.errors import CacheError
from epalm.fingerprint import digest_json
from tests.cache.test_feature_set import SPEC
from tests.conftest import Epalm
from tests.feature_sets import BLOCKS, Block, contents, digest, make_set, require_same, stored_bytes, wider
from tests.hub_emulator import TOKEN, Hub

NAME = "owner/features"


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return make_set(tmp_path / "here", BLOCKS)


class Place:
    """Where sets are published, and its files."""

    def __init__(self, url: str, read: Callable[[], dict[str, bytes]], put: Callable[[str, bytes], object]) -> None:
        self.url, self.files, self.put = url, read, put


@pytest.fixture(params=["folder", "hub"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "hub":
        server: Hub = request.getfixturevalue("hub")

        def kept() -> dict[str, bytes]:
            return {name: data for name, data in server.files(NAME).items() if name != ".gitattributes"}

        return Place(f"hf://datasets/{NAME}", kept, lambda name, data: server.commit(NAME, {name: data}))
    root = tmp_path / "there"

    def read() -> dict[str, bytes]:
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*") if path.is_file()}

    return Place(f"parquet://{root}", read, lambda name, data: (root / name).write_bytes(data))


def test_what_is_pulled_is_what_was_pushed(features: FeatureSet, there: Place, tmp_path: Path, epalm: Epalm) -> None:
    push = ("cache", "push", "image", there.url, "--cache", tmp_path / "here", "--json")
    planned = epalm(*push, "--plan")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)["bytes"] == stored_bytes(features)
    assert not (tmp_path / "there").exists()
    done = epalm(*push)
    assert done.code == 0 and json.loads(done.out)["blocks"] == 4, done.err
    before = there.files()
    again = epalm(*push)
    assert json.loads(again.out)["blocks"] == 0 and there.files() == before
    assert TOKEN not in done.out + done.err + str(before)
    assert features.records()[0].written["host"].encode() not in before["epalm.json"]
    pulled = epalm("cache", "pull", there.url, "--cache", tmp_path / "mine", "--json")
    assert pulled.code == 0, pulled.err
    require_same(features, tmp_path / "mine")
    assert json.loads(epalm("cache", "pull", there.url, "--cache", tmp_path / "mine", "--json").out)["blocks"] == 0


def test_rows_of_many_tokens_and_several_sets_lie_side_by_side(there: Place, tmp_path: Path, epalm: Epalm) -> None:
    many = make_set(tmp_path / "here", BLOCKS, replace(SPEC, tokens=7))
    other = make_set(tmp_path / "here", [Block(range(3), (0, 1))], wider())
    for one in (many, other):
        assert epalm("cache", "push", one.name, there.url, "--cache", tmp_path / "here").code == 0
    several = epalm("cache", "pull", there.url, "--cache", tmp_path / "mine")
    assert several.code == 1 and many.name in several.err and other.name in several.err
    for one in (many, other):
        assert epalm("cache", "pull", there.url, one.name, "--cache", tmp_path / "mine").code == 0
        require_same(one, tmp_path / "mine")


def test_a_missing_pyarrow_is_one_message(
    features: FeatureSet, tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = epalm("cache", "push", features.name, f"parquet://{tmp_path}/there", "--cache", tmp_path / "here")
    assert done.code == 1 and "pyarrow is not installed" in done.err and "pip install 'epalm[parquet]'" in done.err


def test_anybody_reads_the_rows_as_the_card_says(features: FeatureSet, tmp_path: Path, epalm: Epalm) -> None:
    url = f"parquet://{tmp_path}/there"
    words = ("cache", "push", "image", url, "--cache", tmp_path / "here")
    assert epalm(*words).code == 0
    path = tmp_path / "there/README.md"
    card = path.read_text()
    assert "license: unknown" in card and "**Unknown**" in card
    assert epalm(*words, "--licence", "CC BY 4.0!").code == 1 and path.read_text() == card
    assert epalm(*words, "--licence", "cc-by-4.0").code == 0
    assert epalm(*words).code == 0  # what was said once stays
    card = path.read_text()
    assert "license: cc-by-4.0" in card and "Unknown" not in card
    spec = json.loads(card.split("```json\n")[1].split("```")[0])
    assert digest_json(spec) == features.spec.fingerprint and features.spec.fingerprint in card
    found: dict[tuple[str, int], bytes] = {}
    for file in (tmp_path / "there" / features.name).glob("*.parquet"):
        table = parquet.read_table(file)
        shape = json.loads(table.schema.metadata[b"shape"])
        rows = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, *shape)
        keys = zip(table["digest"].to_pylist(), table["view"].to_pylist(), strict=True)
        found |= {key: row.tobytes() for key, row in zip(keys, rows, strict=True)}
    assert found == contents(features)
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL)).replace('Path("', f'Path("{tmp_path}/there/')
    scope: dict[str, np.ndarray] = {}
    exec(code, scope)
    assert scope["rows"].shape[1:] == SPEC.row_shape
    assert epalm("cache", "pull", "s3://x", "--licence", "mit").code == 2  # it is what a push says
    path.write_text(f"{card}\nMine.\n")
    make_set(tmp_path / "here", [*BLOCKS, Block([40])])
    kept = epalm(*words)
    assert kept.code == 0 and "stays" in kept.err and path.read_text().endswith("Mine.\n")


@pytest.mark.parametrize("damage", ["flipped", "cut", "replaced"])
def test_a_block_that_differs_is_refused_by_name(
    damage: str, features: FeatureSet, there: Place, tmp_path: Path, epalm: Epalm
) -> None:
    assert epalm("cache", "push", "image", there.url, "--cache", tmp_path / "here").code == 0
    record = features.records()[0]
    (name,) = [name for name in there.files() if record.block in name]
    data = there.files()[name]
    at = data.index(read_values(features.objects, record).tobytes()[:16])
    flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    there.put(name, {"flipped": flipped, "cut": data[:-9], "replaced": b"PAR1" * len(data)}[damage])
    pulled = epalm("cache", "pull", there.url, "--cache", tmp_path / "mine", "--json")
    assert pulled.code == 3 and "Traceback" not in pulled.err
    assert [one["block"] for one in json.loads(pulled.out)["refused"]] == [record.block]
    arrived = Cache(tmp_path / "mine").load(features.name)
    assert len(arrived.records()) == 3 and arrived.verify() == []


def test_a_file_of_another_block_is_refused(features: FeatureSet, tmp_path: Path, epalm: Epalm) -> None:
    assert epalm("cache", "push", "image", f"parquet://{tmp_path}/there", "--cache", tmp_path / "here").code == 0
    one, other, *_ = sorted((tmp_path / "there" / features.name).iterdir(), key=lambda path: path.stat().st_size)
    one.write_bytes(other.read_bytes())
    pulled = epalm("cache", "pull", f"parquet://{tmp_path}/there", "--cache", tmp_path / "mine", "--json")
    (refused,) = json.loads(pulled.out)["refused"]
    assert pulled.code == 3 and one.name.startswith(refused["block"])


def test_a_damaged_description_is_one_message(features: FeatureSet, there: Place, tmp_path: Path, epalm: Epalm) -> None:
    assert epalm("cache", "push", "image", there.url, "--cache", tmp_path / "here").code == 0
    relicensed = json.dumps(json.loads(there.files()["epalm.json"]) | {"licence": "mit"})
    sealed = {"format": "epalm feature sets in Parquet", "version": 1, "objects": {"sets/x/spec.json": 5}}
    for text in ("", "{", "[]", '{"seal": 1}', relicensed, json.dumps(sealed | {"seal": digest_json(sealed)})):
        there.put("epalm.json", text.encode())
        for words in (("pull", there.url), ("push", "image", there.url)):
            done = epalm("cache", *words, "--cache", tmp_path / "here")
            assert done.code == 1 and done.err.count("error: ") == 1 and "epalm.json" in done.err


def test_whatever_bit_is_flipped_rows_are_the_same_or_refused(features: FeatureSet) -> None:
    record = features.records()[0]
    values = read_values(features.objects, record)
    data, refused = encode_block(record, values), 0
    assert decode_block(record, data).tobytes() == values.tobytes()
    for place in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        try:
            arrived = decode_block(record, bytes(flipped))
            require_values(arrived, record)
        except CacheError:
            refused += 1
        else:
            assert arrived.tobytes() == values.tobytes()
    assert refused > values.nbytes / 3


def test_a_push_that_was_stopped_is_no_set_and_goes_on(
    features: FeatureSet, there: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epalm.cache.objects.hub._TOGETHER", 1)
    stopped = 0
    while True:
        published = PublishedSets(there.url, pushing=True)
        put, lock, left = published._repository.write, threading.Lock(), [1]

        def write(key: str, data: bytes, put: Any = put, lock: Any = lock, left: list[int] = left) -> None:
            with lock:
                if not left:
                    raise CacheError("stopped")
                left.pop()
            put(key, data)

        published._repository.write = write  # type: ignore[method-assign]
        try:
            run_transfer(plan_transfer(features, Cache(published)), "push")
            published.finish()
        except CacheError as error:
            assert error.message == "stopped"
            stopped += 1
        else:
            break
        with pytest.raises(CacheError, match="no whole feature set"):
            PublishedSets(there.url)
    assert stopped == len(BLOCKS) + 1  # one write at a time: the blocks, the card, and the description that ends it
    run_transfer(plan_transfer(Cache(PublishedSets(there.url)).load(features.name), Cache(tmp_path / "mine")), "pull")
    require_same(features, tmp_path / "mine")


def test_the_hub_gets_few_commits_and_a_private_repository(
    hub: Hub,
    tmp_path: Path,
    epalm: Epalm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = make_set(tmp_path / "here", [Block([n]) for n in range(7)])
    monkeypatch.setattr("epalm.cache.objects.hub._TOGETHER", 3)
    push = ("cache", "push", "image", f"hf://datasets/{NAME}", "--cache", tmp_path / "here")
    uploads = 0

    def fail(method: str, path: str) -> int | None:
        nonlocal uploads
        uploads += path.startswith("upload/")
        return 403 if path.startswith("upload/") and uploads > 5 else None

    hub.fail = fail
    stopped = epalm(*push)
    assert stopped.code == 1 and "Traceback" not in stopped.err and "same command again" in stopped.err, stopped.err
    assert TOKEN not in stopped.err and "epalm.json" not in hub.files(NAME) and hub.private[NAME]
    hub.fail = lambda method, path: None
    large = len(hub.large)
    assert epalm(*push).code == 0 and len(hub.large) == 7 > large >= 3
    assert len(hub.repositories[NAME]) <= 2 + 7 // 3 + 1
    pulled = epalm("cache", "pull", f"hf://datasets/{NAME}", "--cache", tmp_path / "mine")
    assert pulled.code == 0, pulled.err
    require_same(features, tmp_path / "mine")


def test_of_two_who_push_at_once_one_is_told(hub: Hub, features: FeatureSet) -> None:
    hub.commit(NAME, {})
    published = PublishedSets(f"hf://datasets/{NAME}", pushing=True)
    run_transfer(plan_transfer(features, Cache(published)), "push")
    hub.commit(NAME, {"epalm.json": b"theirs"})
    with pytest.raises(CacheError, match="412"):
        published.finish()
    assert hub.files(NAME)["epalm.json"] == b"theirs"


def test_what_is_not_there_or_not_to_be_seen_is_one_message(
    hub: Hub,
    features: FeatureSet,
    tmp_path: Path,
    epalm: Epalm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = ("--cache", tmp_path / "here")
    missing = epalm("cache", "pull", f"hf://datasets/{NAME}", *here)
    assert missing.code == 1 and "not there, or not for you to see" in missing.err and "hf auth login" in missing.err
    hub.commit(NAME, {"data.csv": b"1"})
    other = epalm("cache", "pull", f"hf://datasets/{NAME}", *here)
    assert other.code == 1 and "no whole feature set" in other.err
    assert epalm("cache", "pull", f"hf://datasets/{NAME}@{'0' * 40}", *here).code == 1
    for url in ("hf://owner/features", "hf://models/owner/features", f"hf://datasets/{NAME}/x"):
        assert "hf://datasets/OWNER/NAME" in epalm("cache", "push", "image", url, *here).err
    assert "--licence" in epalm("cache", "push", "image", tmp_path / "x", "--licence", "mit", *here).err
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused = epalm("cache", "push", "image", f"hf://datasets/{NAME}", *here)
    assert refused.code == 1 and "hf_wrong" not in refused.err and refused.err.count("error: ") == 1
    assert set(hub.files(NAME)) == {"data.csv"}


def test_an_older_commit_can_be_pulled(hub: Hub, tmp_path: Path, epalm: Epalm) -> None:
    here = ("--cache", tmp_path / "here")
    make_set(tmp_path / "here", [Block([1])])
    assert epalm("cache", "push", "image", f"hf://datasets/{NAME}", *here).code == 0
    first = hub.repositories[NAME][-1][0]
    features = make_set(tmp_path / "here", [Block([1]), Block([2])])
    assert epalm("cache", "push", "image", f"hf://datasets/{NAME}", *here).code == 0
    for url, count in ((f"hf://datasets/{NAME}@{first}", 1), (f"hf://datasets/{NAME}", 2)):
        assert epalm("cache", "pull", url, "--cache", tmp_path / "mine").code == 0
        assert Cache(tmp_path / "mine").load(features.name).rows() == {digest(n) for n in range(1, count + 1)}
