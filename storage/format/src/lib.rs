//! cairn-format
