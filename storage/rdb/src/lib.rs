//! cairn-rdb
