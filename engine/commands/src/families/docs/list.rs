//! What COMMAND DOCS says of the group `list`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("blmove", "6.2.0", "O(1)", "Moves an element from one list to another, waiting for one where there is none."),
    doc("blmpop", "7.0.0", "O(N+M)", "Pops elements from the first list that has any, waiting where none has."),
    doc("blpop", "2.0.0", "O(N)", "Pops the first element of the first list that has any, waiting where none has."),
    doc("brpop", "2.0.0", "O(N)", "Pops the last element of the first list that has any, waiting where none has."),
    doc("brpoplpush", "2.2.0", "O(1)", "Moves the last element of a list to the front of another, waiting for one where there is none.").deprecated("6.2.0", "BLMOVE"),
    doc("lindex", "1.0.0", "O(N)", "Returns the element at an index."),
    doc("linsert", "2.2.0", "O(N)", "Inserts an element before or after another."),
    doc("llen", "1.0.0", "O(1)", "Returns how many elements a list has."),
    doc("lmove", "6.2.0", "O(1)", "Moves an element from one list to another and returns it."),
    doc("lmpop", "7.0.0", "O(N+M)", "Pops elements from the first list that has any."),
    doc("lpop", "1.0.0", "O(N)", "Pops elements from the front of a list."),
    doc("lpos", "6.0.6", "O(N)", "Finds the positions of elements equal to the one given."),
    doc("lpush", "1.0.0", "O(1)", "Puts elements at the front of a list."),
    doc("lpushx", "2.2.0", "O(1)", "Puts elements at the front of a list that is there already."),
    doc("lrange", "1.0.0", "O(S+N)", "Returns a range of elements."),
    doc("lrem", "1.0.0", "O(N+M)", "Removes elements equal to the one given."),
    doc("lset", "1.0.0", "O(N)", "Replaces the element at an index."),
    doc("ltrim", "1.0.0", "O(N)", "Removes all but a range of elements."),
    doc("rpop", "1.0.0", "O(N)", "Pops elements from the end of a list."),
    doc("rpoplpush", "1.2.0", "O(1)", "Moves the last element of a list to the front of another.").deprecated("6.2.0", "LMOVE"),
    doc("rpush", "1.0.0", "O(1)", "Puts elements at the end of a list."),
    doc("rpushx", "2.2.0", "O(1)", "Puts elements at the end of a list that is there already."),
];
