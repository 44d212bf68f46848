//! cairn-disk
