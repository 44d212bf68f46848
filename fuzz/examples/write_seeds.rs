//! Writes the fixtures of the format (never over one that is there: a released format stays readable for ever) and the
//! seeds of the fuzz targets. Run after a new format version or a new target, then commit what it wrote:
//!
//!     cargo run --manifest-path fuzz/Cargo.toml --example write_seeds

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cairn_disk::{Disk, RealDisk};
use cairn_format::frame::{CLEAR_FROM, FRAME_ALIGN, FrameHeader, TAG_BYTES, TimeStamp, lay_out, seal_crc};
use cairn_format::header::{Body, Identity, Magic, SnapshotBody};
use cairn_format::manifest::{Manifest, SegmentEntry, SnapshotEntry};
use cairn_format::{FileId, HEADER_BYTES, LineageId, Lsn};
use cairn_fuzz::fixture::{self, Header, KEYRING, SNAPSHOT_LSN, SNAPSHOTS, snapshot_name};
use cairn_journal::{Catalog, Fsync, Journal, Options, Resume};
use cairn_rdb::file::FileWriter;
use cairn_rdb::primitives::{
    write_double, write_length, write_string, write_string_compressed, write_string_plain,
};
use cairn_rdb::stream::{write_id, write_node};
use cairn_rdb::value::kind;
use cairn_rdb::{Intset, Listpack, StreamId};
use cairn_resp::push_command;
use cairn_seal::{Keyring, new_data_key, new_file_id, seal_manifest, wrap};
use cairn_snapshot::{BlockWriter, LEVEL_DEFAULT, SnapshotError, Source, WriteParams, write_container};

const LINEAGE: LineageId = LineageId(*b"fixture lineage.");
/// 18 November 2026, in milliseconds since 1970.
const NOW_MS: u64 = 1_795_000_000_000;
const EXPIRY_MS: i64 = 1_900_000_000_000;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let keyring = fixture::path("seal/fixtures/v1/keyring");
    if !keyring.exists() {
        fs::create_dir_all(keyring.parent().ok_or("no directory")?)?;
        let digits: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
        fs::write(
            keyring,
            format!("# The key of the fixtures. It is public and protects nothing.\nfixture-v1 {digits}\n"),
        )?;
    }
    for (kind, keyring) in [("plain", None), ("encrypted", Some(Arc::new(KEYRING.clone())))] {
        if fixture::path(&format!("seal/fixtures/v1/{kind}")).exists() {
            println!("the {kind} fixtures are there already");
            continue;
        }
        write_fixtures(kind, keyring)?;
    }
    write_seeds()
}

/// The names of the journal's segments, as the manifest gets them.
#[derive(Default)]
struct Names(Mutex<Vec<SegmentEntry>>);

impl Catalog for Names {
    fn segment_opened(&self, entry: SegmentEntry) -> io::Result<()> {
        self.0.lock().map_err(|_| io::ErrorKind::Other)?.push(entry);
        Ok(())
    }
}

/// A data directory: two segments, the snapshot between them, a manifest.
fn write_fixtures(kind: &str, keyring: Option<Arc<Keyring>>) -> Outcome {
    let dir = |of: &str| fixture::path(&format!("{of}/fixtures/v1/{kind}"));
    for of in ["journal", "snapshot", "seal"] {
        RealDisk.create_dir_all(&dir(of))?;
    }
    let segments = write_journal(&dir("journal"), keyring.clone())?;
    let snapshot = write_snapshot(&dir("snapshot"), keyring.as_deref())?;
    let mut manifest = Manifest {
        lineage: LINEAGE,
        epoch: 1,
        number: 3,
        encrypted: false,
        file_id: FileId::default(),
        key: None,
        databases: 16,
        snapshot: Some(snapshot),
        segments,
    };
    let bytes = seal_manifest(&mut manifest, keyring.as_deref())?;
    fs::write(dir("seal").join("manifest"), bytes)?;
    Ok(())
}

fn effect(words: &[&str]) -> Vec<u8> {
    let mut effect = Vec::new();
    push_command(&mut effect, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    effect
}

fn write_journal(
    dir: &Path,
    keyring: Option<Arc<Keyring>>,
) -> Result<Vec<SegmentEntry>, Box<dyn std::error::Error>> {
    let names = Arc::new(Names::default());
    let options = Options {
        dir: dir.to_path_buf(),
        disk: Arc::new(RealDisk),
        keyring,
        fsync: Fsync::Always,
        segment_bytes: 128 << 10,
        lineage: LINEAGE,
        epoch: 1,
        queue_bytes_max: 1 << 20,
        driver: None,
    };
    let journal = Journal::start(options, Resume::at(Lsn::ZERO), names.clone())?;
    let append = |database, effects: &[u8], after_ms| {
        journal.block_until_durable(journal.append(database, effects, NOW_MS + after_ms))
    };
    append(0, &effect(&["SET", "greeting", "hello"]), 0)?;
    append(0, &effect(&["RPUSH", "list", "a", "b", "7"]), 10)?;
    append(0, &effect(&["SET", "session", "x", "PXAT", &EXPIRY_MS.to_string()]), 20)?;
    append(3, &effect(&["SET", "n", "42"]), 30)?;
    let rotated = journal.rotate();
    println!("the journal was split at {rotated}");
    append(3, &effect(&["SET", "n", "43"]), 40)?;
    append(0, &[effect(&["DEL", "list"]), effect(&["SADD", "set", "1", "2"])].concat(), 50)?;
    append(0, &effect(&["SET", "long", &"cairn".repeat(1000)]), 60)?;
    journal.shutdown()?;
    if rotated != Lsn(SNAPSHOT_LSN) {
        return Err(format!("fixture::SNAPSHOT_LSN must be {rotated}").into());
    }
    let names = names.0.lock().map_err(|_| "a thread panicked")?;
    Ok(names.clone())
}

/// Entries by database: those that the journal's first segment makes.
struct Entries;

impl Source for Entries {
    fn partitions(&self) -> usize {
        2
    }

    fn encode(&self, partition: usize, out: &mut BlockWriter<'_>) -> Result<(), SnapshotError> {
        let key = |raw: &mut Vec<u8>, code, key: &[u8]| {
            raw.push(code);
            write_string_plain(raw, key);
        };
        if partition == 1 {
            return out.entry(3, |raw| {
                key(raw, kind::STRING, b"n");
                write_string(raw, b"42");
            });
        }
        out.entry(0, |raw| {
            key(raw, kind::STRING, b"greeting");
            write_string(raw, b"hello");
        })?;
        out.entry(0, |raw| {
            key(raw, kind::LIST_QUICKLIST_2, b"list");
            raw.extend_from_slice(&list());
        })?;
        out.entry(0, |raw| {
            raw.push(0xfc);
            raw.extend_from_slice(&EXPIRY_MS.to_le_bytes());
            key(raw, kind::STRING, b"session");
            write_string(raw, b"x");
        })
    }
}

fn write_snapshot(
    dir: &Path,
    keyring: Option<&Keyring>,
) -> Result<SnapshotEntry, Box<dyn std::error::Error>> {
    let file_id = new_file_id()?;
    let key = match keyring {
        Some(keyring) => {
            let key = new_data_key()?;
            let slot = wrap(keyring, Magic::Snapshot, file_id, &key, 1)?;
            Some((key, slot))
        }
        None => None,
    };
    let name = snapshot_name();
    let params = WriteParams {
        path_tmp: dir.join(format!("{name}.tmp")),
        path_final: dir.join(&name),
        identity: Identity {
            magic: Magic::Snapshot,
            encrypted: key.is_some(),
            file_id,
            lineage: LINEAGE,
            created_unix_ms: NOW_MS + 35,
            body: Body::Snapshot(SnapshotBody { lsn: Lsn(SNAPSHOT_LSN) }),
        },
        key,
        threads: 1,
        level: LEVEL_DEFAULT,
    };
    write_container(&RealDisk, &params, &Entries, &|_| {})?;
    let bytes = RealDisk.len(&params.path_final)?;
    Ok(SnapshotEntry { name, file_id, lsn: Lsn(SNAPSHOT_LSN), bytes, entries: 4 })
}

fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut listpack = Listpack::new();
    elements.iter().for_each(|element| listpack.push_back(element));
    listpack.into_bytes()
}

/// The list of the fixtures, after its type code.
fn list() -> Vec<u8> {
    let mut out = Vec::new();
    write_length(&mut out, 1);
    write_length(&mut out, kind::NODE_PACKED);
    write_string_plain(&mut out, &listpack(&[b"a", b"b", b"7"]));
    out
}

/// Requests by family, for a whole engine: inline, so that a mutation changes a word and not a length.
const REQUESTS: &[(&str, &str)] = &[
    (
        "strings",
        "SET a 1 EX 100\nINCRBY a 41\nAPPEND a x\nSETRANGE a 9 y\nGETRANGE a 0 -1\nGETEX a PERSIST\nLCS a a IDX\nMSET b 2 c 3\n",
    ),
    (
        "bits",
        "SETBIT b 77 1\nBITFIELD b SET u8 #3 255 OVERFLOW SAT INCRBY i5 100 9\nBITOP XOR d b b\nBITPOS b 1 0 -1 BIT\nBITCOUNT b 0 5 BYTE\n",
    ),
    (
        "lists",
        "RPUSH l a b c 1 2 3\nLINSERT l BEFORE b x\nLPOS l b RANK -1 MAXLEN 0\nLMOVE l m LEFT RIGHT\nLTRIM l 1 -2\nLMPOP 2 l m LEFT COUNT 2\nBLPOP none 0\n",
    ),
    (
        "sets",
        "SADD s 1 2 3 a\nSADD t 3 a b\nSINTERCARD 2 s t LIMIT 1\nSDIFFSTORE d s t\nSRANDMEMBER s -3\nSPOP s 2\nSMISMEMBER s a z\nSSCAN s 0 MATCH * COUNT 5\n",
    ),
    (
        "hashes",
        "HSET h f v g 2\nHINCRBYFLOAT h g 1.5\nHEXPIRE h 100 FIELDS 1 f\nHTTL h FIELDS 2 f g\nHRANDFIELD h -3 WITHVALUES\nHGETDEL h FIELDS 1 f\nHSCAN h 0 NOVALUES\n",
    ),
    (
        "sorted-sets",
        "ZADD z 1 a 2 b 3 c\nZADD z GT CH 5 a\nZRANGE z (1 +inf BYSCORE LIMIT 0 2 REV WITHSCORES\nZUNIONSTORE y 2 z z WEIGHTS 2 3 AGGREGATE MAX\nZRANGEBYLEX z [a (c\nZPOPMAX z 1\n",
    ),
    (
        "places",
        "GEOADD g 13.36 38.11 P 15.08 37.50 C\nGEOSEARCH g FROMMEMBER P BYBOX 400 400 km ASC COUNT 1 ANY WITHDIST\nGEOSEARCHSTORE q g FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST\nGEOHASH g P C\n",
    ),
    (
        "streams",
        "XADD s 1-1 f v\nXADD s MAXLEN ~ 2 * a b c d\nXGROUP CREATE s g 0 MKSTREAM ENTRIESREAD 1\nXREADGROUP GROUP g c COUNT 2 STREAMS s >\nXPENDING s g - + 10 c\nXAUTOCLAIM s g d 0 0-0 JUSTID\nXACK s g 1-1\nXINFO STREAM s FULL\nXTRIM s MINID = 2\n",
    ),
    ("counting", "PFADD p a b c d\nPFMERGE q p p\nPFCOUNT p q\nPFADD p e\n"),
    (
        "keys",
        "SET k v\nEXPIRE k 100 NX\nPEXPIRETIME k\nCOPY k n DB 1 REPLACE\nRENAMENX k o\nOBJECT ENCODING o\nDUMP o\nSCAN 0 TYPE string COUNT 3\nSORT l BY w_* GET # GET f_*->f STORE d\nSWAPDB 0 1\nMOVE o 2\nRANDOMKEY\n",
    ),
    ("transactions", "WATCH a\nMULTI\nSET a 1\nLPUSH a x\nGET a\nEXEC\nMULTI\nFLUSHDB\nDISCARD\n"),
    (
        "connection",
        "HELLO 3 SETNAME me\nCLIENT LIST\nCLIENT TRACKING on BCAST PREFIX a\nCLIENT NO-EVICT on\nCLIENT REPLY SKIP\nSUBSCRIBE c d\nUNSUBSCRIBE\nRESET\nAUTH x y\n",
    ),
    (
        "server",
        "INFO all\nCONFIG GET *\nCOMMAND DOCS get\nCOMMAND GETKEYSANDFLAGS SORT a STORE b\nACL SETUSER u on >p ~k* +@read\nACL DRYRUN u GET k\nSLOWLOG GET 1\nLATENCY HISTOGRAM\nMEMORY USAGE a\nCAIRN KEY STATUS\nDEBUG DIGEST\nWAITAOF 0 0 0\n",
    ),
];

/// What the libraries of scripts decode, behind the number of the library.
const DECODED: &[(&str, &[u8])] = &[
    ("json", b"\0{\"a\":[1,2.5e3,-0,true,false,null,\"\\u00e9\\n\"],\"b\":{\"c\":{}},\"1\":[]}"),
    ("json-deep", b"\0[[[[[[[[[[[[{\"a\":[[[[1]]]]}]]]]]]]]]]]]"),
    ("msgpack", b"\x01\x85\xa1a\x93\x01\xcd\x01\x00\xff\xa1b\xcb\x3f\xf8\0\0\0\0\0\0\xa1c\xc3\xa1d\xc0\xa1e\xda\0\x02xy"),
    ("msgpack-wide", b"\x01\xdd\0\0\0\x02\xdf\0\0\0\x01\xdb\0\0\0\x01k\xd3\xff\xff\xff\xff\xff\xff\xff\xff\xca\x40\x20\0\0"),
    ("struct", b"\x02>I2hBc3s!8d\0\0\x01\xff\xfe\x07abctext\0\0\0\0\0\0\0\0\x3f\xf0"),
    ("struct-counted", b"\x02<i4Bc0\0\x01\0\0\0\x03abc"),
    ("sha", b"\x03anything"),
];

/// Seeds of the targets that run a whole engine.
fn engine_seeds() -> Outcome {
    for (name, requests) in REQUESTS {
        seed("commands", name, requests.as_bytes())?;
    }
    for (name, bytes) in DECODED {
        seed("script_libraries", name, bytes)?;
    }
    // What follows a type code, RESTORE takes too.
    let values = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/rdb_value");
    for entry in fs::read_dir(values)? {
        let entry = entry?;
        seed("restore", &entry.file_name().to_string_lossy(), &fs::read(entry.path())?)?;
    }
    Ok(())
}

fn write_seeds() -> Outcome {
    let requests = effect(&["SET", "key", "value", "PX", "1000"]);
    let pipeline =
        [effect(&["MULTI"]), effect(&["MSET", "a", "1", "b", "", "c", "3", "d", "4"]), effect(&["EXEC"])];
    seed("resp", "request", &requests)?;
    seed("resp", "pipeline", &pipeline.concat())?;
    seed("resp", "inline", b"SET \"a\\x00\\n\" 'it\\'s'\r\n\r\nPING\n*0\r\n*-1\r\n")?;
    seed("resp", "replies", b"*4\r\n+OK\r\n-ERR no\r\n:-42\r\n$3\r\na\r\n\r\n")?;
    seed(
        "resp",
        "replies-3",
        b"%2\r\n+a\r\n~2\r\n,1.5\r\n#t\r\n=5\r\ntxt:b\r\n>2\r\n_\r\n(123456789012345678901\r\n",
    )?;
    seed("resp", "nested", &[b"*1\r\n".repeat(34).as_slice(), b":1\r\n"].concat())?;

    let [plain, encrypted] = &*fixture::SEGMENTS;
    let small = effect(&["SET", "greeting", "hello"]);
    seed("journal_frame", "plain", &frames(plain, &[&small, b""]))?;
    seed(
        "journal_frame",
        "plain-long",
        &frames(plain, &[&effect(&["SET", "k", &"0123456789".repeat(150)])]),
    )?;
    seed("journal_frame", "encrypted", &frames(encrypted, &[&small, b""]))?;
    for header in [plain, encrypted] {
        let name = if header.slot.is_some() { "header-encrypted" } else { "header-plain" };
        seed("journal_frame", name, &cairn_fuzz::compact_header(&header.bytes))?;
    }
    let second = fixture::path("journal/fixtures/v1/encrypted").join(format!("journal-{SNAPSHOT_LSN:020}"));
    let second = fs::read(second)?;
    seed("journal_frame", "header-successor", &cairn_fuzz::compact_header(&second))?;

    for (kind, header) in ["plain", "encrypted"].iter().zip(&*SNAPSHOTS) {
        let file = fixture::read(&format!("snapshot/fixtures/v1/{kind}/{}", snapshot_name()));
        seed("snapshot_container", kind, &file[HEADER_BYTES..])?;
        seed("snapshot_container", &format!("header-{kind}"), &cairn_fuzz::compact_header(&header.bytes))?;
        seed("manifest", kind, &fixture::read(&format!("seal/fixtures/v1/{kind}/manifest")))?;
    }
    let file = fixture::read(&format!("snapshot/fixtures/v1/plain/{}", snapshot_name()));
    let footer = file.len() - cairn_format::container::FOOTER_BYTES;
    let blocks = cairn_format::container::Footer::decode(&file, file.len() as u64)?;
    let index_at = usize::try_from(blocks.index_offset)?;
    seed("snapshot_container", "index", &file[index_at..footer - 4])?;
    let empty = Manifest {
        snapshot: None,
        segments: Vec::new(),
        ..Manifest::decode(&fixture::read("seal/fixtures/v1/plain/manifest"))?.manifest
    };
    seed("manifest", "empty", &empty.encode(|_| [0; 16]))?;

    let sealer = encrypted.sealer().ok_or("the second fixture is encrypted")?;
    for (name, number, is_final, clear, text) in
        [("chunk", 5_u64, false, &b"clear"[..], &b"some plain text"[..]), ("empty", 0, true, b"", b"")]
    {
        let mut sealed = text.to_vec();
        let tag = sealer.seal_in_place(number, is_final, clear, &mut sealed);
        let ends = [u8::from(is_final), u8::try_from(clear.len())?];
        seed("sealed_chunk", name, &[&number.to_le_bytes()[..], &ends, clear, &sealed, &tag].concat())?;
    }
    let slot = encrypted.slot.as_ref().ok_or("the second fixture is encrypted")?.encode();
    seed("sealed_chunk", "key-slot", &slot[..128])?;
    seed("sealed_chunk", "keyring", &fixture::read("seal/fixtures/v1/keyring"))?;

    let values = values();
    for (name, code, value) in &values {
        seed("rdb_value", &format!("{code:02}-{name}"), &[&[*code], value.as_slice()].concat())?;
    }
    let mut dumped = [&[kind::LIST_QUICKLIST_2], list().as_slice()].concat();
    cairn_rdb::dump::finish(&mut dumped);
    seed("rdb_value", "dump", &dumped)?;
    write_files(&values)?;
    engine_seeds()
}

/// Frames as they follow a header, in a file that ends with them.
fn frames(header: &Header, payloads: &[&[u8]]) -> Vec<u8> {
    let Body::Journal(body) = &header.identity.body else { return Vec::new() };
    let (mut out, mut lsn, sealer) = (Vec::new(), body.first_lsn, header.sealer());
    // All payloads here fit one page each.
    let pages = (HEADER_BYTES + payloads.len() * FRAME_ALIGN) / FRAME_ALIGN;
    for (number, payload) in (0_u64..).zip(payloads) {
        let stamps = [
            TimeStamp { lsn, unix_ms: NOW_MS },
            TimeStamp { lsn: lsn.advance(payload.len()), unix_ms: NOW_MS + 1 },
        ];
        let stamps = if payload.is_empty() { &[] } else { &stamps[..] };
        let frame = FrameHeader {
            crc: 0,
            number,
            first_lsn: lsn,
            durable: lsn,
            commit_lsn: lsn.advance(payload.len()),
            payload_bytes: u32::try_from(payload.len()).unwrap_or_default(),
            database: 0,
            commit_database: 0,
            file_pages: u32::try_from(pages).unwrap_or_default(),
            time_stamps: u16::try_from(stamps.len()).unwrap_or_default(),
            encrypted: sealer.is_some(),
        };
        let mut logical = Vec::new();
        frame.encode(&header.file_id(), stamps, &mut logical);
        let mut sealed = payload.to_vec();
        if let Some(sealer) = &sealer {
            let tag: [u8; TAG_BYTES] =
                sealer.seal_in_place(number, false, &logical[CLEAR_FROM..], &mut sealed);
            sealed.extend_from_slice(&tag);
        }
        logical.extend_from_slice(&sealed);
        seal_crc(&mut logical);
        lay_out(&logical, &header.file_id(), (HEADER_BYTES + out.len()) as u64, &mut out);
        lsn = lsn.advance(payload.len());
    }
    out
}

/// A value for each type code: its name, the code, and what follows it.
fn values() -> Vec<(&'static str, u8, Vec<u8>)> {
    let string = |bytes: &[u8]| {
        let mut out = Vec::new();
        write_string_plain(&mut out, bytes);
        out
    };
    let counted = |count, parts: &[Vec<u8>]| {
        let mut out = Vec::new();
        write_length(&mut out, count);
        out.extend_from_slice(&parts.concat());
        out
    };
    let mut score = Vec::new();
    write_double(&mut score, -1.5);
    let mut packed = Vec::new();
    write_string_compressed(&mut packed, &b"abcabcabd".repeat(9));
    let mut integer = Vec::new();
    write_string(&mut integer, b"-70000");
    let mut intset = Intset::new();
    for member in [-3, 5, 70_000] {
        intset.insert(member);
    }
    let (a, b) = (string(b"a"), string(b"b"));
    let pairs = string(&listpack(&[b"f", b"1", b"g", &[b'v'; 70]]));
    // Elements "a" and 5: length of the one before, encoding, contents.
    let ziplist = string(b"\x10\0\0\0\x0d\0\0\0\x02\0\x00\x01a\x03\xf6\xff");
    let soonest = (EXPIRY_MS as u64).to_le_bytes().to_vec();
    let expiring = string(&listpack(&[b"f", b"v", b"1900000000000", b"g", b"w", b"0"]));
    let field = |stored| counted(stored, &[a.clone(), b.clone()]);
    vec![
        ("string", kind::STRING, string(b"hello")),
        ("string-packed", kind::STRING, packed),
        ("string-integer", kind::STRING, integer),
        ("list", kind::LIST, counted(2, &[a.clone(), b.clone()])),
        ("set", kind::SET, counted(2, &[a.clone(), b.clone()])),
        ("zset", kind::ZSET, counted(2, &[a.clone(), string(b"1.5"), b.clone(), vec![0xfe]])),
        ("hash", kind::HASH, counted(1, &[a.clone(), b.clone()])),
        ("zset-2", kind::ZSET_2, counted(1, &[a.clone(), score])),
        ("module-old", kind::MODULE_PRE_GA, vec![1]),
        ("module", kind::MODULE_2, vec![0x81, 1, 2, 3, 4, 5, 6, 7, 8, 0]),
        ("zipmap", kind::HASH_ZIPMAP, string(b"\x01\x03foo\x03\x00bar\xff")),
        ("list-ziplist", kind::LIST_ZIPLIST, ziplist.clone()),
        ("intset", kind::SET_INTSET, string(intset.as_bytes())),
        ("zset-ziplist", kind::ZSET_ZIPLIST, ziplist.clone()),
        ("hash-ziplist", kind::HASH_ZIPLIST, ziplist.clone()),
        ("quicklist", kind::LIST_QUICKLIST, counted(2, &[ziplist.clone(), ziplist])),
        ("stream", kind::STREAM_LISTPACKS, stream(kind::STREAM_LISTPACKS)),
        ("hash-listpack", kind::HASH_LISTPACK, pairs.clone()),
        ("zset-listpack", kind::ZSET_LISTPACK, string(&listpack(&[b"m", b"1.5", b"n", b"-70000"]))),
        ("quicklist-2", kind::LIST_QUICKLIST_2, counted(2, &[vec![1], string(b"plain"), vec![2], pairs])),
        ("stream-2", kind::STREAM_LISTPACKS_2, stream(kind::STREAM_LISTPACKS_2)),
        ("set-listpack", kind::SET_LISTPACK, string(&listpack(&[b"m", b"12", b"4000", b"-9000000000"]))),
        ("stream-3", kind::STREAM_LISTPACKS_3, stream(kind::STREAM_LISTPACKS_3)),
        ("hash-expiry-old", kind::HASH_METADATA_PRE_GA, counted(2, &[field(0), field(9)])),
        ("hash-flat-expiry-old", kind::HASH_LISTPACK_EX_PRE_GA, expiring.clone()),
        ("hash-expiry", kind::HASH_METADATA, [soonest.clone(), counted(2, &[field(0), field(9)])].concat()),
        ("hash-flat-expiry", kind::HASH_LISTPACK_EX, [soonest, expiring].concat()),
    ]
}

/// A stream of two entries and a deleted one, with a group that has one of them pending for its consumer.
fn stream(code: u8) -> Vec<u8> {
    let id = |ms, seq| StreamId { ms, seq };
    let header: [&[u8]; 5] = [b"2", b"1", b"1", b"f", b"0"];
    let entries: [&[u8]; 17] = [
        b"2", b"0", b"0", b"v", b"4", b"3", b"0", b"1", b"12", b"4", b"0", b"1", b"-1", b"1", b"g", b"w",
        b"6",
    ];
    let node = Listpack::from_iter(header.into_iter().chain(entries));
    let mut out = vec![1];
    write_node(&mut out, id(5, 1), &node);
    out.push(2);
    write_id(&mut out, id(6, 0));
    if code != kind::STREAM_LISTPACKS {
        write_id(&mut out, id(5, 1));
        write_id(&mut out, id(5, 2));
        out.push(3);
    }
    out.extend_from_slice(b"\x01\x05group");
    write_id(&mut out, id(5, 1));
    if code != kind::STREAM_LISTPACKS {
        out.push(1);
    }
    let (pending, at_ms) = (id(5, 1).to_bytes(), EXPIRY_MS.to_le_bytes());
    out.push(1);
    out.extend_from_slice(&[&pending[..], &at_ms, &[2], b"\x01\x08consumer", &at_ms].concat());
    if code == kind::STREAM_LISTPACKS_3 {
        out.extend_from_slice(&at_ms);
    }
    out.push(1);
    out.extend_from_slice(&pending);
    out
}

/// Files of all values that can be read; one with its checksum, one with it switched off, so that mutations get through.
fn write_files(values: &[(&'static str, u8, Vec<u8>)]) -> Outcome {
    let refused = [kind::MODULE_PRE_GA, kind::MODULE_2];
    let mut writer = FileWriter::new(Vec::new())?;
    writer.aux("redis-ver", "7.0.0")?;
    writer.database(0, 1, 1)?;
    writer.entry(b"greeting", Some(EXPIRY_MS), kind::STRING, b"\x05hello")?;
    writer.database(7, 20, 0)?;
    for (name, code, value) in values.iter().filter(|value| !refused.contains(&value.1)) {
        writer.entry(name.as_bytes(), None, *code, value)?;
    }
    let mut file = writer.finish()?;
    seed("rdb_file", "all-types", &file)?;
    let checksum = file.len() - 8;
    file[checksum..].fill(0);
    seed("rdb_file", "no-checksum", &file)?;
    // What our writer never writes: idle time, frequency, expiry in seconds, a function, a module beside the keys.
    let others = b"REDIS0011\xfa\x04name\x05value\xf5\x03lua\xfe\x00\xf8\x05\x00\x01a\x01b\xf9\x07\xfd\x00\x00\x00\x70\x00\x01c\x01d\xf7\x81\x01\x02\x03\x04\x05\x06\x07\x08\x02\x01\x00\xff\0\0\0\0\0\0\0\0";
    seed("rdb_file", "other-records", others)
}

fn seed(target: &str, name: &str, bytes: &[u8]) -> Outcome {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)?;
    Ok(())
}
