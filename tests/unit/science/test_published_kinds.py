"""The message for a file that is no checkpoint names its kind and the remedy."""

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from tests.unit.science.test_published import refusal


def a_zip(name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, b"content")
    return made.getvalue()


def a_tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.ckpt"))
    return made.getvalue()


def an_npz() -> bytes:
    made = io.BytesIO()
    np.savez(made, np.ones(3))
    return made.getvalue()


def encrypted(mode: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.ckpt"
        parameter = {"name": "a", "data": ms.Tensor(np.ones(4, np.float32))}
        ms.save_checkpoint([parameter], path, enc_key=b"0123456789abcdef", enc_mode=mode)
        return Path(path).read_bytes()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5420203\n"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty; copy it again"),
        (LFS, "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"\n<html lang=en>", "is a web page"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is an XML document"),
        (a_zip("archive/data.pkl"), "is a PyTorch file"),
        (a_zip("model.ckpt"), "is a zip archive; unpack it"),
        (an_npz(), "is a NumPy .npz archive"),
        (b"\x80\x02}q\x00.", "is a Python pickle, perhaps of PyTorch"),
        (gzip.compress(b"x"), "is a gzip archive"),
        (a_tar(), "is a tar archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (bz2.compress(b"x"), "is a compressed file; unpack it"),
        (lzma.compress(b"x"), "is a compressed file; unpack it"),
        (b"\x28\xb5\x2f\xfd\x24\x01", "is a compressed file; unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "is a compressed file; unpack it"),
        (
            b"\n\x031.1\x12\tMindSpore*\x062.10.0",
            "is a MindIR file; give the .ckpt that it was exported from",
        ),
        (b"\x08\x07\x12\x07pytorch", "is an ONNX file"),
        (b'\x40\0\0\0\0\0\0\0{"a":{}}', "is a safetensors file"),
        (b'{"message": "Not Found"}', "is a JSON document"),
        (b"name: a\n", "is a text file"),
        (b"0123456789abcdef  checkpoint.ckpt\n" * 40, "is a text file"),
        *((encrypted(mode), "is an encrypted checkpoint") for mode in ("AES-GCM", "AES-CBC", "SM4-CBC")),
        (np.random.default_rng(0).bytes(5000), "is not a whole MindSpore checkpoint"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,  # some bytes are random, or hold a time
)
def test_a_file_of_another_kind_is_named(content, named, shapes, tmp_path, capfd):
    path = tmp_path / "given.ckpt"
    path.write_bytes(content)
    assert f"{path} {named}" in refusal(path, shapes)
    assert capfd.readouterr() == ("", "")
