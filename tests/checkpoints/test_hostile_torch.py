"""Damaged and hostile .pth files: bounded time and memory, one line, no byte read outside of its storage."""

import collections
import copy
import io
import pickle
import struct
import warnings
import zipfile

import numpy as np
import published
import pytest
import torch
from checkpoint_files import theirs
from mutations import check

import van
from van import checkpoints
from van.checkpoints import keys, torch_pickle
from van.errors import CheckpointError

pytestmark = pytest.mark.promise("torch-files")


def state():
    return published.tensors(theirs(keys.OFFICIAL))


def refused(path, says):
    with pytest.raises(CheckpointError, match=says) as error:
        van.load(path)
    assert str(path) in str(error.value)
    check(lambda: van.info(path), path.name)


class Made:
    """Pickles as a call of something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Pid:
    """Pickles as a persistent id: a storage."""

    def __init__(self, kind, key, count):
        self.identity = ("storage", kind, key, "cpu", count)


def archive(path, tree, storages=(), **options):
    """A torch file of any tree, with storages of any bytes."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.identity if isinstance(value, Pid) else None

    data = io.BytesIO()
    Pickler(data, 2).dump(tree)
    return packed(path, data.getvalue(), storages, **options)


def packed(path, data, storages=(), **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("a/data.pkl", data)
        for key, part in enumerate(storages):
            file.writestr(f"a/data/{key}", part)
    return path


def tensor(size, stride, *, offset=0, count=4, kind=torch.FloatStorage, key="0"):
    return Made(
        torch._utils._rebuild_tensor_v2, Pid(kind, key, count), offset, size, stride, False, collections.OrderedDict()
    )


def laughs(depth, kind=list):
    value = kind()
    for _ in range(depth):
        value = kind((value, value))
    return value


@pytest.mark.parametrize("place", ["beside", "classes", "record", "legacy"])
def test_shared_lists_that_stand_for_everything(tmp_path, place):
    many = [laughs(60), laughs(40)]
    tree = {"state_dict": state(), "args": many}
    if place == "classes":
        tree = {"meta": {"CLASSES": many}, "state_dict": published.tensors(theirs(keys.MMPRETRAIN))}
    if place == "record":
        tree = {"state_dict": state(), "van": {"provenance": {"x": many}, "config": {}}}
    torch.save(tree, tmp_path / "x.pth", _use_new_zipfile_serialization=place != "legacy")
    refused(tmp_path / "x.pth", "expands to more than")


def test_lists_in_themselves_and_lists_too_deep(tmp_path):
    ring = []
    ring.append(ring)
    torch.save({"state_dict": state(), "x": ring}, tmp_path / "ring.pth")
    refused(tmp_path / "ring.pth", "contains itself")
    refused(packed(tmp_path / "deep.pth", b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."), "nested too deeply")


def test_tuples_whose_hash_would_not_end(tmp_path):
    torch.save({"state_dict": state(), "x": [laughs(60, tuple)]}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", "expands to more than")
    data = b"\x80\x02}(" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01u."  # {((…),(…)): 1}
    refused(packed(tmp_path / "key.pth", data), "for a key")


def test_one_large_value_handed_over_again_and_again(tmp_path):
    again = [Made(collections.Counter, shared) for shared in [dict.fromkeys(range(10**4))] for _ in range(3000)]
    refused(archive(tmp_path / "x.pth", again), "repeats large values")


def test_parts_that_unpack_to_gigabytes(tmp_path):
    bomb = packed(tmp_path / "x.pth", b"\x80\x02]" + b"0" * 2**28, compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**20
    refused(bomb, "would unpack to")


def test_parts_that_overlap_or_share_a_name(tmp_path):
    for name, says in (("a/data/1", "overlap"), ("a/data/0", "parts have the same name|overlap")):
        path = tmp_path / "x.pth"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a/data.pkl", pickle.dumps({}, 2))
            file.writestr("a/data/0", bytes(100))
            twin = copy.copy(file.infolist()[-1])
            twin.filename = name
            file.filelist.append(twin)
        refused(path, says)


@pytest.mark.parametrize(
    ("size", "stride", "options"),
    [
        ((5,), (1,), {}),
        ((4,), (1,), {"offset": 1}),
        ((2, 2), (3, 1), {}),
        ((10**9, 10**9), (0, 0), {}),
        ((8,), (0,), {}),
        ((10**12,), (1,), {"count": 10**12}),
        ((16,), (1,), {"count": 16}),
        ((-1,), (1,), {}),
        ((2,), (-1,), {"offset": 3}),
        ((2,), (1,), {"offset": -1}),
        ((2**62,), (1,), {}),
        ((2,), (), {}),
        ((4,), (1,), {"key": "nowhere"}),
        ((1,) * 40, (1,) * 40, {}),
        ((4,), (1,), {"kind": torch.DoubleStorage}),
        ((True,), (1,), {}),
        ("ab", (1, 1), {}),
    ],
)
def test_no_tensor_reaches_outside_of_its_storage(tmp_path, size, stride, options):
    path = archive(tmp_path / "x.pth", {"state_dict": {"head.weight": tensor(size, stride, **options)}}, [bytes(16)])
    refused(path, "reaches beyond|sizes or strides|without a storage|is missing|not a storage|argument|cannot")


def test_tensors_inside_their_storage_are_read(tmp_path):
    numbers = np.arange(12, dtype="<f4")
    tree = [tensor((3, 2), (1, 4), offset=1, count=12), tensor((), (), offset=11, count=12), tensor((0, 7), (1, 1))]
    path = archive(tmp_path / "x.pth", tree, [numbers.tobytes()])
    (turned, one, none), notes = torch_pickle.read(path)
    assert turned.tolist() == [[1, 5], [2, 6], [3, 7]]
    assert (one, none.shape, notes) == (11, (0, 7), ())
    assert turned.base is one.base


def test_storages_that_are_shared_until_the_memory_is_full(tmp_path):
    tree = {f"block1.{i}.norm1.weight": tensor((2**20,), (1,), count=2**20) for i in range(1000)}
    path = archive(tmp_path / "x.pth", {"state_dict": tree}, [bytes(2**22)])
    refused(path, "share their bytes")


def test_a_name_in_a_dict_twice(tmp_path):
    data = b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u."
    refused(packed(tmp_path / "x.pth", data), "holds 'a' twice")


def test_numbers_of_any_length_are_no_trouble(tmp_path):
    torch.save({"state_dict": state(), "epoch": 10**5000}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", "beyond 64 bits|for a name")
    data = b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"."
    refused(packed(tmp_path / "y.pth", data), "declares more than|truncated")


def test_changed_bytes_are_noticed_and_missing_checksums_are_not(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": state()}, path)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
    whole[largest.header_offset + 200] ^= 1
    path.write_bytes(whole)
    refused(path, "Bad CRC")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"state_dict": state()}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoints.read(path).format == "official"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_compressed_archives_are_read_or_named(tmp_path, method):
    torch.save({"state_dict": state()}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as source, zipfile.ZipFile(tmp_path / "y.pth", "w", method) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert checkpoints.read(tmp_path / "y.pth").format == "official"
    data = bytearray((tmp_path / "y.pth").read_bytes())
    for place in range(0, len(data), len(data) // 40):
        damaged = data.copy()
        damaged[place] ^= 0xFF
        (tmp_path / "z.pth").write_bytes(damaged)
        check(lambda: van.load(tmp_path / "z.pth"), f"byte {place}")


def test_archives_that_ask_for_a_password_or_another_method(tmp_path):
    torch.save({"state_dict": state()}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    for offset, value in ((6, 1), (8, 99), (4, 255)):  # flags, method, version, in both directories
        changed = bytearray(data)
        for signature, more in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
            place = changed.find(signature)
            while place >= 0:
                changed[place + offset + more] = value
                place = changed.find(signature, place + 4)
        (tmp_path / "y.pth").write_bytes(changed)
        refused(tmp_path / "y.pth", "download or save it again")


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_files_from_before_torch_1_6(tmp_path, keep):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": state()}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert checkpoints.read(path).format == "official"
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, "truncated, corrupt")
    count = data.rfind(struct.pack("<q", 4))  # of some storage
    path.write_bytes(data[:count] + struct.pack("<q", 2**40) + data[count + 8 :])
    check(lambda: van.load(path), "a long storage")


def test_tar_archives_are_named(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo("storages"))
    refused(tmp_path / "x.tar", "is a tar archive; unpack it")


def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path):
    half, shared = torch.randn(3, 4).half(), torch.randn(10)
    tree = {
        "a": half.t(),
        "b": shared[2:5],
        "c": shared[::2],
        "d": torch.randn(2, 2).bfloat16(),
        "e": torch.nn.Parameter(torch.arange(3.0)),
        "f": torch.tensor(7),
        "g": [torch.tensor([True, False]), {"h": torch.randn(2).double()}],
        "i": np.arange(4.0).reshape(2, 2).T,
        "j": np.float64(2.5),
        "k": collections.defaultdict(list, {"l": [1, 2.5, None, "ü", b"x"]}),
        "m": torch.randn(2, 3).to(torch.complex64),
        "n": torch.tensor([1, 2], dtype=torch.uint16),
    }
    for legacy in (False, True):
        if legacy:
            del tree["n"]  # which torch cannot save so
        for protocol in (2, 4):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.save(tree, tmp_path / "x", _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
            read, notes = torch_pickle.read(tmp_path / "x")
            want = torch.load(tmp_path / "x", weights_only=False)
            for key in set("abcefmn") & set(tree):
                assert np.array_equal(read[key], want[key].detach().numpy()), key
                assert read[key].dtype == want[key].detach().numpy().dtype
            assert np.array_equal(read["d"], want["d"].float().numpy())
            assert notes == ("1 bfloat16 tensors were widened to float32",)
            assert np.array_equal(read["g"][1]["h"], want["g"][1]["h"].numpy())
            assert np.array_equal(read["i"], tree["i"])
            assert read["j"] == 2.5
            assert read["k"] == {"l": [1, 2.5, None, "ü", b"x"]}
