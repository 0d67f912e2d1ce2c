"""A real language model of one layer and random weights in a GGUF file: it babbles letters without end."""

import random
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

_WIDTH, _HEADS, _INNER = 32, 2, 64
_TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
_LETTERS = range(_TOKENS.index("<0x61>"), _TOKENS.index("<0x7A>") + 1)
_UNKNOWN, _CONTROL, _BYTE = 2, 3, 6
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_ALIGNMENT = 32
_TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
)


def write_tiny_model(path: Path, *, context: int) -> Path:
    """`context` is its window in tokens; it has one for each byte and makes thousands a second."""
    facts = [
        _fact("general.architecture", _STRING, _string("llama")),
        _count("llama.context_length", context),
        _count("llama.embedding_length", _WIDTH),
        _count("llama.block_count", 1),
        _count("llama.feed_forward_length", _INNER),
        _count("llama.attention.head_count", _HEADS),
        _fact("llama.attention.layer_norm_rms_epsilon", _FLOAT32, struct.pack("<f", 1e-5)),
        _fact("tokenizer.ggml.model", _STRING, _string("llama")),
        _list("tokenizer.ggml.tokens", _STRING, [_string(token) for token in _TOKENS]),
        _list("tokenizer.ggml.scores", _FLOAT32, [struct.pack("<f", 0.0)] * len(_TOKENS)),
        _list(
            "tokenizer.ggml.token_type",
            _INT32,
            [struct.pack("<i", kind) for kind in (_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256)],
        ),
        _count("tokenizer.ggml.bos_token_id", 1),
        _count("tokenizer.ggml.eos_token_id", 2),
        _fact("tokenizer.ggml.add_space_prefix", _BOOL, b"\0"),
        _fact("tokenizer.chat_template", _STRING, _string(_TEMPLATE)),
    ]
    tensors = _tensors()
    directory, data = b"", b""
    for name, shape, values in tensors:
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        directory += _string(name) + sizes + struct.pack("<IQ", 0, len(data))
        data += _padded(values.tobytes())
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)) + b"".join(facts)
    path.write_bytes(_padded(header + directory) + data)
    return path


def _tensors() -> list[tuple[str, tuple[int, ...], "array[float]"]]:
    draw = random.Random(7)

    def noise(*shape: int, rows: Sequence[int] | None = None) -> "tuple[tuple[int, ...], array[float]]":
        width, height = shape
        kept = range(height) if rows is None else rows
        values = [draw.gauss(0, 0.5) if row in kept else 0.0 for row in range(height) for _ in range(width)]
        return shape, array("f", values)

    ones = (_WIDTH,), array("f", [1.0] * _WIDTH)
    square = (_WIDTH, _WIDTH)
    return [
        ("token_embd.weight", *noise(_WIDTH, len(_TOKENS))),
        ("output_norm.weight", *ones),
        ("output.weight", *noise(_WIDTH, len(_TOKENS), rows=_LETTERS)),
        ("blk.0.attn_norm.weight", *ones),
        ("blk.0.attn_q.weight", *noise(*square)),
        ("blk.0.attn_k.weight", *noise(*square)),
        ("blk.0.attn_v.weight", *noise(*square)),
        ("blk.0.attn_output.weight", *noise(*square)),
        ("blk.0.ffn_norm.weight", *ones),
        ("blk.0.ffn_gate.weight", *noise(_WIDTH, _INNER)),
        ("blk.0.ffn_up.weight", *noise(_WIDTH, _INNER)),
        ("blk.0.ffn_down.weight", *noise(_INNER, _WIDTH)),
    ]


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _fact(key: str, kind: int, value: bytes) -> bytes:
    return _string(key) + struct.pack("<I", kind) + value


def _count(key: str, number: int) -> bytes:
    return _fact(key, _UINT32, struct.pack("<I", number))


def _list(key: str, kind: int, items: Sequence[bytes]) -> bytes:
    return _fact(key, _ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(items))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
