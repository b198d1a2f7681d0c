"""Untrusted data and models: refused without running code, hanging or exhausting memory."""

import bz2
import io
import json
import os
import pickle
import random
import re
import signal
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.EpsImagePlugin import EpsImageFile

from metarl.baselines.stable_baselines import load_model, save_model
from metarl.errors import UserError
from metarl.io import read_file, read_zip
from metarl.rl.policies import GaussianPolicy
from metarl.supervised.datasets import omniglot
from metarl.supervised.datasets.decoding import decode
from metarl.supervised.datasets.images import load_images
from metarl.supervised.datasets.unpickling import unpickle

# of each kind of file; the long form has thousands
MUTATIONS = int(os.environ.get("METARL_MUTATIONS", "25"))
POLICY = GaussianPolicy(2, 2, (4,))
FEW = omniglot.Published(
    characters={"images_background": 2, "images_evaluation": 2},
    drawings=2,
    split={"train": 2, "validation": 1, "test": 1},
)


class Spaces(gym.Env):
    """An environment with given spaces, which is never stepped."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a small model of stable-baselines3."""
    path = tmp_path_factory.mktemp("model") / "model.zip"
    save_model(path, POLICY, POLICY.init(torch.Generator().manual_seed(0)), Spaces())
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four characters in the two archives of Omniglot."""
    monkeypatch.setattr(omniglot, "PUBLISHED", FEW)
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    for part, characters in FEW.characters.items():
        members = {
            f"{part}/Greek of {part}/character{number}/{copy}.png": drawing()
            for number in range(characters)
            for copy in range(FEW.drawings)
        }
        (tmp_path / f"{part}.zip").write_bytes(zipped(members, zipfile.ZIP_DEFLATED))
    return tmp_path


def drawing(kind: str = "PNG") -> bytes:
    page = Image.new("L", (105, 105), 255)
    page.paste(0, (20, 50, 80, 60))
    file = io.BytesIO()
    page.save(file, kind)
    return file.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def refusal(call: Callable[[], object]) -> str:
    """The one-line error message of a refusal, which must come quickly."""
    with pytest.raises(UserError) as refused, soon():
        call()
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert not re.search(r"\. [A-Z]", sentence)
    return sentence


@contextmanager
def soon() -> Iterator[None]:
    """Fail tests that wait for a pipe without a writer, or read without an end."""

    def fail(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# files


def test_special_files_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert f"{path.name} is not a regular file" in refusal(
            lambda path=path: read_file(path, 10**9)
        )
        assert str(path) in refusal(lambda path=path: load_model(path, POLICY))
        assert str(path) in refusal(lambda path=path: unpickle(path))


def test_a_path_with_a_null_character_is_refused() -> None:
    assert "null" in refusal(lambda: read_file(Path("a\0b"), 10))


def test_an_oversized_file_is_refused_without_reading(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as output:
        output.truncate(2**40)
    assert "1,099,511,627,776 bytes" in refusal(lambda: read_file(file, 2**20))
    assert str(file) in refusal(lambda: load_model(file, POLICY))
    assert str(file) in refusal(lambda: unpickle(file))


# zip files


def bomb(name: str) -> bytes:
    """A small archive, with a member that claims to have 3 GB."""
    content = bytearray(zipped({name: bytes(2**20)}, zipfile.ZIP_DEFLATED))
    for signature, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        struct.pack_into("<I", content, content.index(signature) + offset, 3 * 2**30)
    return bytes(content)


def encrypted(content: bytes) -> bytes:
    data = bytearray(content)
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        start = content.index(signature)
        data[start + offset] |= 1
    return bytes(data)


ODD = {
    "a bomb": (bomb, "decompresses to 3,221,225,472 bytes"),
    "encrypted": (lambda name: encrypted(zipped({name: b"abc"})), "encrypted"),
    "bzip2": (lambda name: zipped({name: b"abc"}, zipfile.ZIP_BZIP2), "unsupported method"),
    "lzma": (lambda name: zipped({name: b"abc"}, zipfile.ZIP_LZMA), "unsupported method"),
    "empty": (lambda name: b"", "not a zip file"),
    "bzip2 alone": (lambda name: bz2.compress(b"abc"), "not a zip file"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_invalid_archive_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    make, reason = ODD[kind]
    file = tmp_path / "odd.zip"
    file.write_bytes(make("data"))
    with pytest.raises(ValueError, match=reason):
        read_zip(file, lambda name: True, 2**28)
    assert reason in refusal(lambda: load_model(file, POLICY))


@pytest.mark.parametrize("kind", ODD)
def test_the_error_for_an_invalid_archive_of_omniglot_names_its_source(
    kind: str, few: Path
) -> None:
    make, reason = ODD[kind]
    file = few / "images_background.zip"
    file.write_bytes(make("images_background/Greek/character1/1.png"))
    sentence = refusal(lambda: load_images("omniglot", few))
    assert f"the archive {file} is corrupt" in sentence
    assert reason in sentence
    assert omniglot.URL in sentence


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_members_of_one_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "two.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data", b"{}")
        archive.writestr("data", b"[]")
    with pytest.raises(ValueError, match="two members of the same name"):
        read_zip(file, lambda name: True, 2**20)


@pytest.mark.slow
def test_unneeded_members_are_not_unpacked(few: Path, model, tmp_path: Path) -> None:
    (few / "images_background.zip").write_bytes((few / "images_background.zip").read_bytes())
    with zipfile.ZipFile(few / "images_background.zip", "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images_background/notes.txt", b"what zipfile unpacks without a bound")
        archive.writestr("elsewhere.png", b"no image at all")
    assert len(load_images("omniglot", few).images) == 8
    file = tmp_path / "model.zip"
    needed = {name: model[name] for name in ("data", "policy.pth")}
    file.write_bytes(zipped({**needed, "policy.optimizer.pth": b"no pickle at all"}))
    assert load_model(file, POLICY)[1] == 0


# models of stable-baselines3


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"null",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"num_timesteps": "many"}',
        b'{"num_timesteps": -1}',
        b'{"num_timesteps": 1e999}',
        b'{"num_timesteps": true}',
        b'{"num_timesteps": 1' + b"0" * 400 + b"}",
        b'{"policy_kwargs": [1]}',
    ],
    ids=lambda data: repr(data[:24]),
)
def test_settings_of_a_model_unknown_to_stable_baselines3_are_refused(
    data: bytes, model: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "model.zip"
    file.write_bytes(zipped({**model, "data": data}))
    assert f"{file} is not a model of stable-baselines3" in refusal(
        lambda: load_model(file, POLICY)
    )


class Hoard:
    """An object that allocates any amount of memory by a function that torch allows."""

    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (10,)


def saved(weights: object) -> bytes:
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([1, 2], "not a dictionary of tensors"),
        ({1: torch.zeros(2)}, "not a dictionary of tensors"),
        ({"a": 1.0}, "not a dictionary of tensors"),
        ({"a": Hoard()}, "bytearray"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, "DoubleStorage"),
        ({"a": torch.zeros(2).to_sparse()}, "sparse"),
        ({"a": torch.full((2,), torch.nan)}, "not finite"),
        ({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, "larger than their storage"),
        ({"a": torch.zeros(2)}, "lacks 'action_net.weight'"),
        ({"action_net.weight": torch.zeros(2)}, "1 dimensions"),
        ({"mlp_extractor.policy_net.x": torch.zeros(2)}, "invalid literal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_of_a_model_must_be_float32(
    weights: object, reason: str, model: dict[str, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "model.zip"
    file.write_bytes(zipped({**model, "policy.pth": saved(weights)}))
    sentence = refusal(lambda: load_model(file, POLICY))
    assert f"{file} is not a model of stable-baselines3" in sentence
    assert reason in sentence


# images


def test_an_eps_file_under_another_name_starts_no_program(monkeypatch) -> None:
    eps = io.BytesIO()
    Image.new("L", (105, 105), 255).save(eps, "EPS")
    opened = []
    monkeypatch.setattr(EpsImageFile, "_open", lambda image: opened.append(image))
    Image.init()  # whatever else of the program may have made Pillow know all its formats
    assert "is corrupt or not a PNG or JPEG" in refusal(lambda: decode(eps.getvalue(), "1.png"))
    assert opened == []
    with suppress(Exception):
        Image.open(eps)
    assert len(opened) == 1  # without a list of formats it would have been


def test_a_small_file_with_gigabytes_of_pixels_is_refused_without_decoding() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert "the image 1.png has 9000x9000 pixels" in refusal(lambda: decode(png, "1.png"))


# pickles


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p9999999999\n"], ids=["r", "p"])
def test_a_large_memo_index_in_a_pickle_allocates_no_memory(put: bytes, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    file = tmp_path / "memo.pkl"
    file.write_bytes(b"]" + put + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(UserError):
        unpickle(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20  # kB


def test_a_pickle_cannot_set_the_state_of_functions(tmp_path: Path) -> None:
    file = tmp_path / "state.pkl"
    file.write_bytes(b"c_codecs\nencode\n(N(dVencoding\nVrot13\nstb.")
    assert "a state for function" in refusal(lambda: unpickle(file))


def test_exponentially_nested_lists_in_a_pickle_are_not_expanded(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    laughs: list[object] = [1] * 10
    for _ in range(12):
        laughs = [laughs] * 10  # 10^13 numbers, in a few hundred bytes
    for split in ("train_phase_train", "val", "test"):
        content = {"data": np.zeros((1, 84, 84, 3), np.uint8), "labels": laughs}
        file = tmp_path / f"miniImageNet_category_split_{split}.pickle"
        file.write_bytes(pickle.dumps(content))
    sentence = refusal(lambda: load_images("miniimagenet", tmp_path))
    assert "labels in" in sentence
    assert "values other than integers" in sentence


# mutations


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Content with a few bytes changed, repeated, left out, cut off or added."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        # structure is where a file begins and ends
        reach = min(len(data), rng.choice([50, 500, len(data) or 1]))
        place = rng.randrange(reach + 1)
        if rng.random() < 0.5:
            place = len(data) - place
        length = rng.choice([1, 1, 2, 4, 30])
        match rng.randrange(6):
            case 0:
                data[place : place + length] = rng.randbytes(length)
            case 1:
                data[place : place + length] = b"\xff" * length
            case 2:
                data[place : place + length] = bytes(length)
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[max(0, place - length) : place] * rng.choice([1, 99])
            case 5:
                del data[place:]
    return bytes(data)


def survives(call: Callable[[], object]) -> None:
    with suppress(UserError), soon():
        call()


def test_mutated_models_are_read_or_refused(model: dict[str, bytes], tmp_path: Path) -> None:
    rng, file = random.Random(0), tmp_path / "model.zip"
    for number in range(2 * MUTATIONS):
        if number % 2:
            file.write_bytes(mutated(zipped(model), rng))
        else:  # in a sound archive, so that the checksums are right
            name = rng.choice(["data", "policy.pth"])
            file.write_bytes(zipped({**model, name: mutated(model[name], rng)}))
        survives(lambda: load_model(file, POLICY))


def test_mutated_weights_in_a_valid_model_are_read_or_refused(
    model: dict[str, bytes], tmp_path: Path
) -> None:
    rng, file = random.Random(1), tmp_path / "model.zip"
    with zipfile.ZipFile(io.BytesIO(model["policy.pth"])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(MUTATIONS):
        name = rng.choice([*(name for name in members if name.endswith("data.pkl")), *members])
        weights = zipped({**members, name: mutated(members[name], rng)})
        file.write_bytes(zipped({**model, "policy.pth": weights}))
        survives(lambda: load_model(file, POLICY))


def test_mutated_archives_of_omniglot_are_read_or_refused(few: Path) -> None:
    rng, file = random.Random(2), few / "images_background.zip"
    sound = file.read_bytes()
    for _ in range(MUTATIONS):
        file.write_bytes(mutated(sound, rng))
        survives(lambda: load_images("omniglot", few))


@pytest.mark.parametrize("suffix", ["npy", "json"])
def test_mutated_conversions_are_read_or_refused(few: Path, suffix: str) -> None:
    load_images("omniglot", few)
    rng, (file,) = random.Random(5), (few / "cache").glob(f"*.{suffix}")
    sound = file.read_bytes()
    contents = [mutated(sound, rng) for _ in range(MUTATIONS)]
    for content in [*contents, b"", b"[" * 100_000, b"null", sound.replace(b"8", b"9" * 30)]:
        file.write_bytes(content)
        survives(lambda: load_images("omniglot", few))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_mutated_images_are_decoded_or_refused(kind: str) -> None:
    rng, sound = random.Random(3), drawing(kind)
    for _ in range(2 * MUTATIONS):
        survives(lambda: decode(mutated(sound, rng), "1.png"))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_mutated_pickles_of_miniimagenet_are_read_or_refused(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    rng = random.Random(protocol)
    image = np.zeros((1, 84, 84, 3), np.uint8)
    for split in ("train", "val", "test"):
        content = {"class_dict": {split: [0]}, "image_data": image}
        file = tmp_path / f"mini-imagenet-cache-{split}.pkl"
        file.write_bytes(pickle.dumps(content, protocol))
    sound = file.read_bytes()
    for _ in range(MUTATIONS):
        file.write_bytes(mutated(sound, rng))
        survives(lambda: load_images("miniimagenet", tmp_path))


def test_mutated_tables_of_miniimagenet_are_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METARL_CACHE", str(tmp_path / "cache"))
    rng = random.Random(4)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(drawing())
    for split in ("train", "val", "test"):
        table = tmp_path / f"{split}.csv"
        table.write_text(f"filename,label\n1.png,{split}\n")
    sound = table.read_bytes()
    for _ in range(MUTATIONS):
        table.write_bytes(mutated(sound, rng))
        survives(lambda: load_images("miniimagenet", tmp_path))


def test_mutations_differ_and_are_reproducible() -> None:
    def all_of(seed: int) -> list[bytes]:
        rng = random.Random(seed)
        return [mutated(json.dumps(list(range(100))).encode(), rng) for _ in range(50)]

    assert all_of(0) == all_of(0)
    assert len(set(all_of(0))) > 45
