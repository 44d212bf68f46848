//! cairn-resp
