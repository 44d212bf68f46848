//! Values: every type code of RDB versions 1 to 12, decoded into neutral forms. Flat ones stay flat, so that a keyspace
//! adopts their bytes instead of building them anew.

use crate::error::RdbError;
use crate::intset::Intset;
use crate::listpack::Listpack;
use crate::primitives::Source;
use crate::stream::{self, StoredStream};
use crate::ziplist;

/// The type codes, as they stand in files. Append-only: another program wrote them.
pub mod kind {
    /// A string.
    pub const STRING: u8 = 0;
    /// A list, element by element.
    pub const LIST: u8 = 1;
    /// A set, member by member.
    pub const SET: u8 = 2;
    /// A sorted set with scores as text.
    pub const ZSET: u8 = 3;
    /// A hash, field by field.
    pub const HASH: u8 = 4;
    /// A sorted set with binary scores.
    pub const ZSET_2: u8 = 5;
    /// A module's value, older form.
    pub const MODULE_PRE_GA: u8 = 6;
    /// A module's value.
    pub const MODULE_2: u8 = 7;
    /// A hash as a zipmap.
    pub const HASH_ZIPMAP: u8 = 9;
    /// A list as a ziplist.
    pub const LIST_ZIPLIST: u8 = 10;
    /// A set as an intset.
    pub const SET_INTSET: u8 = 11;
    /// A sorted set as a ziplist.
    pub const ZSET_ZIPLIST: u8 = 12;
    /// A hash as a ziplist.
    pub const HASH_ZIPLIST: u8 = 13;
    /// A list of ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    /// A stream.
    pub const STREAM_LISTPACKS: u8 = 15;
    /// A hash as a listpack.
    pub const HASH_LISTPACK: u8 = 16;
    /// A sorted set as a listpack.
    pub const ZSET_LISTPACK: u8 = 17;
    /// A list of listpacks and large elements.
    pub const LIST_QUICKLIST_2: u8 = 18;
    /// A stream, second form.
    pub const STREAM_LISTPACKS_2: u8 = 19;
    /// A set as a listpack (from Redis 7.2 on).
    pub const SET_LISTPACK: u8 = 20;
    /// A stream, third form.
    pub const STREAM_LISTPACKS_3: u8 = 21;
    /// A hash with field expiry, before its release.
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    /// In a file of Valkey, from 9.0 on: a hash with field expiry.
    pub const HASH_VALKEY: u8 = 22;
    /// A flat hash with field expiry, before its release.
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    /// A hash with field expiry.
    pub const HASH_METADATA: u8 = 24;
    /// A flat hash with field expiry.
    pub const HASH_LISTPACK_EX: u8 = 25;
    /// In a list of listpacks: the node is one large element.
    pub const NODE_PLAIN: u64 = 1;
    /// In a list of listpacks: the node is a listpack.
    pub const NODE_PACKED: u64 = 2;
}

/// A node of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListNode {
    /// One large element.
    Plain(Vec<u8>),
    /// Several elements.
    Packed(Listpack),
}

/// A field of a hash with its value and, when it has one, its expiry in milliseconds since 1970.
pub type FieldWithExpiry = (Vec<u8>, Vec<u8>, Option<u64>);

/// A decoded value. Nothing is said about duplicates or order: the keyspace that adopts it checks them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A string.
    String(Vec<u8>),
    /// A list, element by element.
    List(Vec<Vec<u8>>),
    /// A list in its nodes.
    ListNodes(Vec<ListNode>),
    /// A set, member by member.
    Set(Vec<Vec<u8>>),
    /// A set of integers.
    SetIntset(Intset),
    /// A set as a listpack.
    SetListpack(Listpack),
    /// A hash, field by field.
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
    /// A hash as a listpack of fields and values in turn.
    HashListpack(Listpack),
    /// A hash some of whose fields expire.
    HashWithExpiry(Vec<FieldWithExpiry>),
    /// A sorted set, member by member.
    Zset(Vec<(Vec<u8>, f64)>),
    /// A sorted set as a listpack of members and scores in turn.
    ZsetListpack(Listpack),
    /// A stream.
    Stream(Box<StoredStream>),
}

/// Decodes a value of a type code. Modules' values are refused with their names.
pub fn decode(code: u8, source: &mut impl Source) -> Result<Value, RdbError> {
    let start = source.offset();
    Ok(match code {
        kind::STRING => Value::String(source.string()?),
        kind::LIST => Value::List(elements(source, |source| source.string())?),
        kind::SET => Value::Set(elements(source, |source| source.string())?),
        kind::HASH => Value::Hash(elements(source, |source| Ok((source.string()?, source.string()?)))?),
        kind::ZSET => Value::Zset(elements(source, |source| Ok((source.string()?, score(source, false)?)))?),
        kind::ZSET_2 => Value::Zset(elements(source, |source| Ok((source.string()?, score(source, true)?)))?),
        kind::HASH_ZIPMAP => {
            let mut listpack = Listpack::new();
            ziplist::read_zipmap(&source.string()?, |field, value| {
                listpack.push_back(field);
                listpack.push_back(value);
            })?;
            Value::HashListpack(listpack)
        }
        kind::LIST_ZIPLIST => Value::ListNodes(vec![ListNode::Packed(from_ziplist(source)?)]),
        kind::SET_INTSET => Value::SetIntset(Intset::from_bytes(source.string()?)?),
        kind::ZSET_ZIPLIST => Value::ZsetListpack(from_ziplist(source)?),
        kind::HASH_ZIPLIST => Value::HashListpack(from_ziplist(source)?),
        kind::LIST_QUICKLIST => {
            Value::ListNodes(elements(source, |source| Ok(ListNode::Packed(from_ziplist(source)?)))?)
        }
        kind::LIST_QUICKLIST_2 => Value::ListNodes(elements(source, list_node)?),
        kind::HASH_LISTPACK => Value::HashListpack(listpack(source)?),
        kind::ZSET_LISTPACK => Value::ZsetListpack(listpack(source)?),
        kind::SET_LISTPACK => Value::SetListpack(listpack(source)?),
        kind::HASH_METADATA_PRE_GA | kind::HASH_METADATA => {
            Value::HashWithExpiry(hash_metadata(source, code == kind::HASH_METADATA)?)
        }
        kind::HASH_LISTPACK_EX_PRE_GA | kind::HASH_LISTPACK_EX => {
            Value::HashWithExpiry(hash_listpack_ex(source, code == kind::HASH_LISTPACK_EX)?)
        }
        kind::STREAM_LISTPACKS | kind::STREAM_LISTPACKS_2 | kind::STREAM_LISTPACKS_3 => {
            Value::Stream(Box::new(stream::decode(code, source)?))
        }
        kind::MODULE_PRE_GA => return Err(RdbError::Module { module: String::new(), offset: start }),
        kind::MODULE_2 => {
            return Err(RdbError::Module { module: module_name(source.length()?), offset: start });
        }
        _ => return Err(RdbError::UnknownType { code, offset: start }),
    })
}

/// A count and as many elements. The count may lie: no more is allocated at once than elements were read.
pub(crate) fn elements<S: Source, T>(
    source: &mut S,
    mut element: impl FnMut(&mut S) -> Result<T, RdbError>,
) -> Result<Vec<T>, RdbError> {
    let count = source.length()?;
    let mut elements = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(4_096));
    for _ in 0..count {
        elements.push(element(source)?);
    }
    Ok(elements)
}

fn score(source: &mut impl Source, binary: bool) -> Result<f64, RdbError> {
    let score = if binary { source.double()? } else { source.double_text()? };
    if score.is_nan() {
        return Err(RdbError::malformed(source.offset(), "score", "not a number"));
    }
    Ok(score)
}

fn listpack(source: &mut impl Source) -> Result<Listpack, RdbError> {
    Listpack::from_bytes(source.string()?)
}

fn from_ziplist(source: &mut impl Source) -> Result<Listpack, RdbError> {
    let bytes = source.string()?;
    let mut listpack = Listpack::with_capacity(bytes.len());
    ziplist::read(&bytes, |element| listpack.push_back(element))?;
    Ok(listpack)
}

fn list_node(source: &mut impl Source) -> Result<ListNode, RdbError> {
    match source.length()? {
        kind::NODE_PLAIN => Ok(ListNode::Plain(source.string()?)),
        kind::NODE_PACKED => Ok(ListNode::Packed(listpack(source)?)),
        _ => Err(RdbError::malformed(source.offset(), "list", "a node of an unknown kind")),
    }
}

/// Expiries are stored as differences to the soonest, plus one; before the release of this form, as they are.
fn hash_metadata(source: &mut impl Source, relative: bool) -> Result<Vec<FieldWithExpiry>, RdbError> {
    let soonest = if relative { source.u64()? } else { 1 };
    elements(source, |source| {
        let stored = source.length()?;
        let expiry = (stored > 0).then(|| soonest.saturating_add(stored - 1));
        Ok((source.string()?, source.string()?, expiry))
    })
}

/// Fields, values and expiries (0: none) in turn.
fn hash_listpack_ex(source: &mut impl Source, has_soonest: bool) -> Result<Vec<FieldWithExpiry>, RdbError> {
    if has_soonest {
        source.u64()?;
    }
    let listpack = listpack(source)?;
    let mut items = listpack.iter();
    let mut fields = Vec::with_capacity(listpack.len() / 3);
    while let Some(field) = items.next() {
        let (Some(value), Some(expiry)) = (items.next(), items.next()) else {
            return Err(RdbError::malformed(source.offset(), "hash", "a field without value or expiry"));
        };
        let Some(expiry) = expiry.as_i64().and_then(|expiry| u64::try_from(expiry).ok()) else {
            return Err(RdbError::malformed(source.offset(), "hash", "an expiry that is no time"));
        };
        fields.push((field.to_vec(), value.to_vec(), Some(expiry).filter(|expiry| *expiry > 0)));
    }
    Ok(fields)
}

/// A hash of Valkey some of whose fields expire: the moment stands behind each value, and -1 says that there is none.
pub(crate) fn decode_valkey_hash(source: &mut impl Source) -> Result<Value, RdbError> {
    let fields = elements(source, |source| {
        let (field, value) = (source.string()?, source.string()?);
        let at = source.u64()?.cast_signed();
        Ok((field, value, u64::try_from(at).ok()))
    })?;
    Ok(Value::HashWithExpiry(fields))
}

/// Passes over what a module wrote: values that each say their own kind, up to an end mark.
pub(crate) fn skip_module_values(source: &mut impl Source) -> Result<(), RdbError> {
    loop {
        match source.length()? {
            0 => return Ok(()),
            1 | 2 => drop(source.length()?),
            3 => drop(source.u32()?),
            4 => drop(source.u64()?),
            5 => drop(source.string()?),
            _ => {
                let reason = "a value of an unknown kind";
                return Err(RdbError::malformed(source.offset(), "module data", reason));
            }
        }
    }
}

/// A module's name: nine characters of six bits each, above ten bits of version.
pub fn module_name(id: u64) -> String {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9u32)
        .filter_map(|place| {
            let index = (id >> (58 - 6 * place)) & 0x3f;
            CHARACTERS.get(usize::try_from(index).ok()?).map(|byte| char::from(*byte))
        })
        .collect()
}
