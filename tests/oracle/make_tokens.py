"""Token files by the writers that users have, and what they hold, for the tests of tokstream.

    python3 -m venv V && V/bin/pip install numpy pyarrow duckdb polars
    V/bin/python tests/oracle/make_tokens.py

Writes tests/golden/tokens: good/NAME.parquet, each of which holds the lists of EXPECTED[NAME] and is
read back by pyarrow here before it is kept; SET.jsonl, the same lists as text; bad/NAME.parquet, each
with one thing wrong; demo.sha256, of the demo's token files as pyarrow reads them;
and seeds of the fuzzer to tests/fuzz/corpus/parquet. Made with
pyarrow 26.0, duckdb 2.0, polars 2.1.
"""

import glob
import hashlib
import json
import os
import random
import shutil

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "golden", "tokens")
SEEDS = os.path.join(HERE, "..", "fuzz", "corpus", "parquet")
DEMO = os.path.join(HERE, "..", "..", "demo", "tiny-gemma2", "tokens")


def make_lists():
    """Sets of lists: of all lengths, with empty ones; all of one length; ids of all sizes; few ids, so
    that every writer makes a dictionary of them."""
    draw = random.Random(49)
    mixed = [[draw.randrange(900) for _ in range(draw.choice([0, 0, 1, 2, 5, 9, 17, 40]))]
             for _ in range(60)]
    mixed[0] = []
    mixed[20] = [7] * 90 + [draw.randrange(900) for _ in range(400)]  # spans pages of 64 values
    mixed[-1] = []
    even = [[2] + [draw.randrange(1024) for _ in range(15)] for _ in range(40)]
    wide = [[0, 1, 2**31 - 1, 2**31, 2**32 - 1], [], [2**32 - 1] * 12, [draw.randrange(2**32)
            for _ in range(30)]]
    few = [[draw.choice([1, 2, 3, 5, 8, 13, 70000]) for _ in range(draw.randrange(25))]
           for _ in range(50)]
    return {"mixed": mixed, "even": even, "wide": wide, "few": few}


SETS = make_lists()
EXPECTED = {}


def path(folder, name):
    return os.path.join(OUT, folder, name + ".parquet")


def check(name, lists):
    EXPECTED[name] = lists
    read = pq.read_table(path("good", name))["input_ids"].to_pylist()
    assert read == SETS[lists], name


def good(name, lists, kind=pa.list_(pa.int32()), others=None, nullable=True, **options):
    options = {"compression": "none", **options}
    table = {"input_ids": pa.array(SETS[lists], kind)}
    fields = [pa.field("input_ids", kind, nullable)]
    for where, key, column in others or []:
        table[key] = column
        fields.insert(0 if where == "before" else len(fields), pa.field(key, column.type))
    schema = pa.schema(fields)
    pq.write_table(pa.table(table, schema=schema), path("good", name), **options)
    check(name, lists)


def columns_of(name):
    return pq.ParquetFile(path("good", name)).metadata.row_group(0).column(0)


def write_duckdb(name, lists, options, folder="good"):
    connection = duckdb.connect()
    connection.register("rows", pa.table({"input_ids": pa.array(SETS[lists], pa.list_(pa.int32()))}))
    connection.execute(f"copy rows to '{path(folder, name)}' (format parquet, {options})")


def write_good():
    int64, items = pa.list_(pa.int64()), pa.field("item", pa.int32(), nullable=False)
    good("v1-snappy", "mixed", compression="snappy")
    good("v1-plain64", "mixed", int64, use_dictionary=False)
    good("v1-snappy-plain", "mixed", use_dictionary=False, compression="snappy")
    good("v2-snappy", "mixed", compression="snappy", data_page_version="2.0")
    good("v2-none", "mixed", data_page_version="2.0")
    good("v2-plain", "mixed", int64, data_page_version="2.0", use_dictionary=False,
         compression="snappy")
    # The dictionary grows beyond its limit in the middle: later pages of the chunk are plain.
    good("fallback", "mixed", dictionary_pagesize_limit=400, data_page_size=64, write_batch_size=16)
    encodings = columns_of("fallback").encodings
    assert "PLAIN" in encodings and "RLE_DICTIONARY" in encodings, encodings
    good("fallback-v2", "mixed", int64, dictionary_pagesize_limit=400, data_page_size=64,
         write_batch_size=16, data_page_version="2.0", compression="snappy")
    good("small-pages", "mixed", data_page_size=64, write_batch_size=16, compression="snappy")
    good("groups", "mixed", row_group_size=7, write_page_index=True, compression="snappy",
         write_page_checksum=True)
    good("checksum-v2", "mixed", write_page_checksum=True, data_page_version="2.0",
         compression="snappy")
    good("required", "mixed", pa.list_(items), nullable=False)
    good("required-list", "mixed", nullable=False)
    good("required-item", "mixed", pa.list_(items), data_page_version="2.0")
    good("large-list", "mixed", pa.large_list(pa.int32()))
    good("fixed-list", "even", pa.list_(pa.int32(), 16), compression="snappy")
    good("chunked", "even", use_content_defined_chunking=True, write_page_index=True)
    for type in (pa.int16(), pa.uint16(), pa.uint32(), pa.uint64()):
        good(str(type), "mixed", pa.list_(type))
    good("wide-uint32", "wide", pa.list_(pa.uint32()))
    good("wide-int64", "wide", int64, compression="snappy")
    good("wide-uint64-plain", "wide", pa.list_(pa.uint64()), use_dictionary=False)
    count = len(SETS["mixed"])
    good("among-others", "mixed", compression="snappy", others=[
        ("before", "text", pa.array([f"row {i}" if i % 3 else None for i in range(count)])),
        ("before", "pair", pa.array([{"a": i, "b": [1.5] * (i % 3)} for i in range(count)])),
        ("after", "labels", pa.array([[i, None] for i in range(count)], pa.list_(pa.int64())))])
    # Old writers call the item "item".
    pq.write_table(pa.table({"input_ids": pa.array(SETS["mixed"], int64)}), path("good", "old-names"),
                   use_compliant_nested_type=False, compression="none")
    check("old-names", "mixed")
    polars.DataFrame({"input_ids": SETS["mixed"]}, schema={"input_ids": polars.List(polars.Int32)}
                     ).write_parquet(path("good", "polars"), compression="snappy")
    check("polars", "mixed")
    polars.DataFrame({"input_ids": SETS["even"]}, schema={"input_ids": polars.List(polars.UInt32)}
                     ).write_parquet(path("good", "polars-groups"), compression="uncompressed",
                                     row_group_size=16, data_page_size=64)
    check("polars-groups", "even")
    polars.DataFrame({"input_ids": SETS["few"]}, schema={"input_ids": polars.List(polars.Int64)}
                     ).write_parquet(path("good", "polars-few"), compression="snappy")
    check("polars-few", "few")
    write_duckdb("duckdb", "mixed", "compression snappy")
    write_duckdb("duckdb-few", "few", "compression uncompressed")
    check("duckdb", "mixed")
    check("duckdb-few", "few")
    encodings = columns_of("duckdb-few").encodings
    assert any("DICTIONARY" in encoding for encoding in encodings), encodings
    pq.write_table(pa.table({"input_ids": pa.array([], pa.list_(pa.int32()))}), path("good", "empty"))
    EXPECTED["empty"] = "none"


def bad(name, lists, kind=pa.list_(pa.int32()), **options):
    options = {"compression": "none", **options}
    pq.write_table(pa.table({"input_ids": pa.array(lists, kind)}), path("bad", name), **options)


def write_bad():
    few = [[1, 2], [3], [], [4, 5]]
    bad("null-list", few + [None, [6]])
    bad("null-token", few + [[6, None, 7]])
    bad("negative", few + [[], [6, -5]], use_dictionary=False)
    bad("negative-dictionary", few + [[], [6, -5]], pa.list_(pa.int64()))
    bad("too-large", few + [[2**32]], pa.list_(pa.int64()))
    for codec in ("gzip", "zstd", "brotli", "lz4"):
        bad(codec, few, compression=codec)
    for encoding in ("DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"):
        bad(encoding.lower(), few, use_dictionary=False, column_encoding=encoding)
    write_duckdb("duckdb-v2", "mixed", "parquet_version v2", "bad")  # DELTA_BINARY_PACKED
    bad("lists-of-lists", [few], pa.list_(pa.list_(pa.int32())))
    bad("strings", [["a"]], pa.list_(pa.string()))
    bad("floats", [[1.0]], pa.list_(pa.float32()))
    bad("no-list", [1, 2], pa.int32())
    bad("pairs", [[{"a": 1, "b": 2}]], pa.list_(pa.struct([("a", pa.int32()), ("b", pa.int32())])))
    pq.write_table(pa.table({"tokens": [[1]], "text": ["x"]}), path("bad", "other-columns"))


def jsonl(lists):
    return "".join(json.dumps({"index": i, "input_ids": ids}, separators=(",", ":")) + "\n"
                   for i, ids in enumerate(lists))


def write_other_forms():
    """The set "even" as .npy of each type, and without a header."""
    even = np.array(SETS["even"])
    for type in ("<u2", "<i4", "<u4", "<i8", "<u8"):
        np.save(os.path.join(OUT, "good", type[1:] + ".npy"), even.astype(type))
    even.astype("<u2").tofile(os.path.join(OUT, "good", "even-u16.bin"))
    np.save(os.path.join(OUT, "good", "flat.npy"), even.astype("<u2").ravel())
    np.save(os.path.join(OUT, "bad", "negative.npy"), np.array([[1, 2], [3, -4]]))


def write_seeds():
    """Small files for the fuzzer, one of each thing that it should know of."""
    few = [[1, 2, 70000], [], [5] * 40, [3], [2**32 - 1, 0]]
    int64, plain = pa.list_(pa.int64()), {"use_dictionary": False}
    forms = {
        "dictionary": (int64, {"compression": "snappy"}),
        "plain": (int64, plain),
        "v2": (int64, {"data_page_version": "2.0", "compression": "snappy"}),
        "v2-plain": (pa.list_(pa.uint32()), {"data_page_version": "2.0", **plain}),
        "groups": (int64, {"row_group_size": 2, "write_page_checksum": True}),
        "fallback": (int64, {"dictionary_pagesize_limit": 8, "data_page_size": 8,
                             "write_batch_size": 4}),
    }
    os.makedirs(SEEDS, exist_ok=True)
    for name, (kind, options) in forms.items():
        pq.write_table(pa.table({"input_ids": pa.array(few, kind)}),
                       os.path.join(SEEDS, name + ".parquet"), store_schema=False,
                       write_statistics=False, **{"compression": "none", **options})
    for name in ("duckdb-few", "empty"):
        shutil.copy(path("good", name), SEEDS)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(os.path.join(OUT, "good"))
    os.makedirs(os.path.join(OUT, "bad"))
    SETS["none"] = []
    write_good()
    write_bad()
    write_other_forms()
    write_seeds()
    for name, lists in SETS.items():
        with open(os.path.join(OUT, name + ".jsonl"), "w") as file:
            file.write(jsonl(lists))
    with open(os.path.join(OUT, "good.tsv"), "w") as file:
        for name, lists in sorted(EXPECTED.items()):
            file.write(f"{name}\t{lists}\n")
    rows = [ids for name in sorted(glob.glob(os.path.join(DEMO, "*.parquet")))
            for ids in pq.read_table(name)["input_ids"].to_pylist()]
    with open(os.path.join(OUT, "demo.sha256"), "w") as file:
        file.write(hashlib.sha256(jsonl(rows).encode()).hexdigest() + "\n")


main()
